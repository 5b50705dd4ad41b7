//! News between instances over Valkey (or Redis) pub/sub.
//!
//! A wake-up only: a change that is lost or late is repaired by position in [`super::Notify`]. Whispers have no position, so each
//! instance numbers what it sends, gives a sign of life every second, and hears itself: a number that is missing, also of its
//! own, says that something was lost ([`Notify::missed`]), and an instance that does not hear itself knows that it is deaf.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use fred::{
    clients::{Client, SubscriberClient},
    interfaces::{ClientLike as _, EventInterface as _, PubsubInterface as _},
    types::{Builder, config::Config},
};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{broadcast::error::RecvError, mpsc},
    time::Instant,
};

use super::{Bus, Message, Notify};
use crate::{Error, Result, clock::Randomness};

/// Messages that may wait to be sent; beyond it they are dropped and repaired by position.
const OUTBOX_MAX: usize = 4096;
/// Messages that may wait to be read.
const INBOX_MAX: usize = 8192;
/// How often an instance gives a sign of life.
const BEAT_EVERY: Duration = Duration::from_secs(1);
/// An instance that has not heard itself for so long is deaf.
const DEAF_AFTER_MS: u64 = 3_000;
/// Instances whose numbers are remembered; more were never alive at once.
const INSTANCES_MAX: usize = 1_000;
/// Letters of an instance's name: 95 bits.
const NAME_LEN: usize = 16;

/// What travels: who sent it, the how manieth of theirs it is (from 1), and the message; without one it is a sign of life.
#[derive(Serialize, Deserialize)]
struct Envelope {
    from: String,
    nth: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    message: Option<Message>,
}

/// Sends our news to the channel `voicechat:SERVER:news` and receives those of others. Cheap to clone.
#[derive(Clone)]
pub struct Valkey(Arc<Inner>);

struct Inner {
    outbox: mpsc::Sender<Message>,
    /// A message did not fit into the outbox.
    overflowed: AtomicBool,
    began: Instant,
    /// When we last heard ourselves, in milliseconds since `began`, counted from 1; 0: never.
    heard_ms: AtomicU64,
}

impl fmt::Debug for Valkey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Valkey").field("hears", &self.hears()).finish_non_exhaustive()
    }
}

impl Bus for Valkey {
    fn send(&self, message: &Message) {
        // Full or closed: the others find the gap by its position, or by our next number.
        if self.0.outbox.try_send(message.clone()).is_err() {
            self.0.overflowed.store(true, Ordering::Release);
        }
    }

    fn hears(&self) -> bool {
        let heard_ms = self.0.heard_ms.load(Ordering::Acquire);
        heard_ms > 0 && self.0.now_ms() < heard_ms + DEAF_AFTER_MS
    }
}

impl Inner {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX) + 1
    }
}

impl Valkey {
    /// Connect to `url` and give `notify` the news of the other instances from now on. For [`Notify::connect`].
    ///
    /// # Errors
    /// [`Error::Internal`] when the address is wrong or nobody answers.
    pub async fn connect(url: &str, server_name: &str, randomness: &Randomness, notify: &Notify) -> Result<Self> {
        let config = Config::from_url(url).map_err(|error| Error::Internal(format!("valkey address: {error}")))?;
        let mut builder = Builder::from_config(config);
        builder.with_performance_config(|performance| performance.broadcast_channel_capacity = INBOX_MAX);
        builder.set_policy(fred::types::config::ReconnectPolicy::new_exponential(0, 100, 5_000, 2));
        let publisher = builder.build().map_err(Error::internal)?;
        let subscriber: SubscriberClient = builder.build_subscriber_client().map_err(Error::internal)?;
        publisher.init().await.map_err(|error| Error::Internal(format!("valkey does not answer: {error}")))?;
        subscriber.init().await.map_err(|error| Error::Internal(format!("valkey does not answer: {error}")))?;
        let channel = format!("voicechat:{server_name}:news");
        let name = randomness.letters(NAME_LEN);

        let (outbox, waiting) = mpsc::channel(OUTBOX_MAX);
        let inner =
            Inner { outbox, overflowed: AtomicBool::new(false), began: Instant::now(), heard_ms: AtomicU64::new(0) };
        let valkey = Self(Arc::new(inner));
        let inbox = subscriber.message_rx();
        subscriber.subscribe(channel.clone()).await.map_err(Error::internal)?;
        subscriber.manage_subscriptions();
        let listener =
            Listener { valkey: valkey.clone(), notify: notify.clone(), own: name.clone(), last: HashMap::new() };
        tokio::spawn(listener.listen(subscriber, inbox));
        tokio::spawn(valkey.clone().speak(publisher, channel, name, waiting));
        Ok(valkey)
    }

    /// Send what waits, and a sign of life now and then.
    async fn speak(self, publisher: Client, channel: String, from: String, mut waiting: mpsc::Receiver<Message>) {
        let mut beat = tokio::time::interval(BEAT_EVERY);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut nth = 0;
        loop {
            let message = tokio::select! {
                Some(message) = waiting.recv() => Some(message),
                _ = beat.tick() => None,
            };
            // A number nobody gets says that something is missing.
            nth += 1 + u64::from(self.0.overflowed.swap(false, Ordering::AcqRel));
            let Ok(text) = serde_json::to_string(&Envelope { from: from.clone(), nth, message }) else { continue };
            if let Err(error) = publisher.publish::<i64, _, _>(&channel, text).await {
                tracing::debug!(%error, "news not sent; others will find the gap");
            }
        }
    }
}

struct Listener {
    valkey: Valkey,
    notify: Notify,
    own: String,
    /// The last number heard of each instance.
    last: HashMap<String, u64>,
}

impl Listener {
    async fn listen(
        mut self,
        _kept: SubscriberClient,
        mut inbox: tokio::sync::broadcast::Receiver<fred::types::Message>,
    ) {
        loop {
            match inbox.recv().await {
                Ok(message) => {
                    let text = message.value.into_string().unwrap_or_default();
                    match serde_json::from_str::<Envelope>(&text) {
                        Ok(envelope) => self.take(envelope),
                        Err(error) => tracing::warn!(%error, "news that cannot be read"),
                    }
                }
                Err(RecvError::Lagged(_)) => self.notify.missed(),
                Err(RecvError::Closed) => return,
            }
        }
    }

    fn take(&mut self, envelope: Envelope) {
        let Envelope { from, nth, message } = envelope;
        let is_own = from == self.own;
        if self.last.len() >= INSTANCES_MAX && !self.last.contains_key(&from) {
            self.last.clear();
        }
        let last = self.last.insert(from, nth).unwrap_or(0);
        if nth > last + 1 {
            self.notify.missed();
        }
        if is_own {
            // After what was lost is forgotten: from here on what is remembered is believed again.
            self.valkey.0.heard_ms.store(self.valkey.0.now_ms(), Ordering::Release);
        }
        if let Some(message) = message.filter(|_| !is_own) {
            self.notify.receive(message);
        }
    }
}
