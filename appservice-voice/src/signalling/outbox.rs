//! News on its way to one connection: numbered, bounded, and honest about what is left out.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::{Notify, mpsc};
use voice_protocol::notifications::News;

/// Messages that may wait for one connection. A reader further behind is let go.
const OUTBOX_LEN_MAX: usize = 512;
/// `voice.speaking` is left out for whoever is this far behind.
const OUTBOX_LEN_FOR_SPEAKING: usize = 128;

/// The sending end.
#[derive(Clone)]
pub(crate) struct Outbox {
    sender: mpsc::Sender<String>,
    seq: Arc<AtomicU64>,
    overflow: Arc<Notify>,
}

/// The receiving end.
pub(crate) struct Inbox {
    receiver: mpsc::Receiver<String>,
    overflow: Arc<Notify>,
}

impl Outbox {
    pub(crate) fn new() -> (Self, Inbox) {
        let (sender, receiver) = mpsc::channel(OUTBOX_LEN_MAX);
        let overflow = Arc::new(Notify::new());
        (Self { sender, seq: Arc::default(), overflow: overflow.clone() }, Inbox { receiver, overflow })
    }

    /// Put news in the queue. False: the reader is too far behind, and the connection ends.
    pub(crate) fn put(&self, news: &News) -> bool {
        let seq = self.seq.fetch_add(1, Ordering::Relaxed) + 1;
        let waiting = OUTBOX_LEN_MAX - self.sender.capacity();
        if matches!(news, News::Speaking(_)) && waiting >= OUTBOX_LEN_FOR_SPEAKING {
            return true;
        }
        let text = serde_json::to_string(&news.clone().numbered(seq)).expect("news are strings and numbers");
        let put = self.sender.try_send(text).is_ok();
        if !put {
            self.overflow.notify_one();
        }
        put
    }
}

impl Inbox {
    /// The next message; `None` when the reader fell too far behind.
    pub(crate) async fn next(&mut self) -> Option<String> {
        tokio::select! {
            biased;
            () = self.overflow.notified() => None,
            text = self.receiver.recv() => text,
        }
    }

    /// What waits already.
    pub(crate) fn next_now(&mut self) -> Option<String> {
        self.receiver.try_recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use voice_protocol::notifications::{ServerGoingAway, Speaking, SpeakingState};

    use super::*;

    fn speaking() -> News {
        News::Speaking(Speaking {
            room_id: "!r:example.org".to_owned(),
            participant_id: "p".to_owned(),
            level: -20,
            state: SpeakingState::Started,
        })
    }

    fn important() -> News {
        News::ServerGoingAway(ServerGoingAway { resume_after_ms: 1 })
    }

    #[tokio::test]
    async fn a_slow_reader_misses_speech_and_sees_the_gap_in_the_numbers() {
        let (outbox, mut inbox) = Outbox::new();
        for _ in 0..OUTBOX_LEN_FOR_SPEAKING + 10 {
            assert!(outbox.put(&speaking()));
        }
        assert!(outbox.put(&important()));

        let mut last = Value::Null;
        for _ in 0..=OUTBOX_LEN_FOR_SPEAKING {
            last = serde_json::from_str(&inbox.next().await.unwrap()).unwrap();
        }

        assert_eq!(last["method"], "voice.server_going_away");
        assert_eq!(last["params"]["seq"], OUTBOX_LEN_FOR_SPEAKING + 11);
        assert_eq!(inbox.next_now(), None);
    }

    #[tokio::test]
    async fn a_reader_that_misses_anything_else_is_let_go() {
        let (outbox, mut inbox) = Outbox::new();

        let put = (0..=OUTBOX_LEN_MAX).filter(|_| outbox.put(&important())).count();

        assert_eq!(put, OUTBOX_LEN_MAX);
        assert_eq!(inbox.next().await, None);
    }
}
