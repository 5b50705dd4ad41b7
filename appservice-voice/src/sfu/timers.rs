//! When each peer wants to be woken. A heap with lazy deletion: each packet costs at most one push, and only when the
//! peer's deadline moved forward; nothing ever walks over all peers.

use std::{cmp::Reverse, collections::BinaryHeap, time::Instant};

use super::demux::PeerKey;

/// What one peer carries for [`Timers`].
#[derive(Debug, Default)]
pub(super) struct Alarm {
    /// When the peer wants to be woken.
    wanted: Option<Instant>,
    /// The earliest entry in the heap that will come back to this peer.
    armed: Option<Instant>,
}

#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Instant, PeerKey)>>,
}

impl Timers {
    /// The peer wants to be woken at `at`, whatever it wanted before.
    pub(super) fn set(&mut self, peer: PeerKey, alarm: &mut Alarm, at: Instant) {
        alarm.wanted = Some(at);
        if alarm.armed.is_none_or(|armed| at < armed) {
            alarm.armed = Some(at);
            self.heap.push(Reverse((at, peer)));
        }
    }

    /// The next peer whose entry has come up. Ask [`Self::rings`] whether it is meant.
    pub(super) fn pop(&mut self, now: Instant) -> Option<(Instant, PeerKey)> {
        let Reverse((at, _)) = *self.heap.peek()?;
        if at > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }

    /// Whether an entry popped for this peer is due; if its deadline moved back, waits for that instead.
    pub(super) fn rings(&mut self, peer: PeerKey, alarm: &mut Alarm, entry_at: Instant, now: Instant) -> bool {
        if alarm.armed != Some(entry_at) {
            return false;
        }
        alarm.armed = None;
        match alarm.wanted {
            Some(at) if at <= now => {
                alarm.wanted = None;
                true
            }
            Some(at) => {
                self.set(peer, alarm, at);
                false
            }
            None => false,
        }
    }

    pub(super) fn next_at(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PEER: PeerKey = PeerKey { index: 1, generation: 1 };

    fn rings_at(timers: &mut Timers, alarm: &mut Alarm, now: Instant) -> usize {
        let mut rings = 0;
        while let Some((at, peer)) = timers.pop(now) {
            rings += usize::from(timers.rings(peer, alarm, at, now));
        }
        rings
    }

    #[test]
    fn a_deadline_that_moves_back_rings_once_and_late() {
        let (mut timers, mut alarm, start) = (Timers::default(), Alarm::default(), Instant::now());
        let ms = |ms| start + Duration::from_millis(ms);

        timers.set(PEER, &mut alarm, ms(10));
        timers.set(PEER, &mut alarm, ms(30));

        assert_eq!(rings_at(&mut timers, &mut alarm, ms(15)), 0);
        assert_eq!(rings_at(&mut timers, &mut alarm, ms(30)), 1);
        assert_eq!(rings_at(&mut timers, &mut alarm, ms(99)), 0);
    }

    #[test]
    fn a_deadline_that_moves_forward_rings_once_and_early() {
        let (mut timers, mut alarm, start) = (Timers::default(), Alarm::default(), Instant::now());
        let ms = |ms| start + Duration::from_millis(ms);

        timers.set(PEER, &mut alarm, ms(30));
        timers.set(PEER, &mut alarm, ms(10));

        assert_eq!(rings_at(&mut timers, &mut alarm, ms(10)), 1);
        assert_eq!(rings_at(&mut timers, &mut alarm, ms(99)), 0);
    }

    #[test]
    fn many_packets_do_not_grow_the_heap() {
        let (mut timers, mut alarm, start) = (Timers::default(), Alarm::default(), Instant::now());

        for packet in 0..1000 {
            timers.set(PEER, &mut alarm, start + Duration::from_millis(50 + packet));
        }

        assert_eq!(timers.heap.len(), 1);
    }
}
