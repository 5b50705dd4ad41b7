//! Is someone speaking? From the audio level that senders put on each packet (RFC 6464); nothing is decoded. Pure.
//!
//! Speech starts at [`LEVEL_START_DBOV`] held for [`PACKETS_TO_START`] packets and stops after [`HOLD`] below
//! [`LEVEL_STOP_DBOV`]; two changes are at least [`CHANGE_INTERVAL_MIN`] apart, so nobody causes more than ten a second.

use std::time::{Duration, Instant};

use voice_protocol::notifications::SpeakingState;

/// Louder than this begins speech. dBov: 0 is the loudest, −127 digital silence.
pub const LEVEL_START_DBOV: i8 = -45;
/// Quieter than this lets speech end.
pub const LEVEL_STOP_DBOV: i8 = -50;
/// Consecutive loud packets that begin speech: a click is one.
pub const PACKETS_TO_START: u8 = 2;
/// How long speech survives quiet.
pub const HOLD: Duration = Duration::from_millis(300);
/// Least time between two changes.
pub const CHANGE_INTERVAL_MIN: Duration = Duration::from_millis(100);

/// Follows the level of one sender.
#[derive(Debug)]
pub struct Detector {
    speaking: bool,
    /// Smoothed, dBov.
    level: i8,
    loud_packets: u8,
    loud_at: Option<Instant>,
    changed_at: Option<Instant>,
}

impl Default for Detector {
    fn default() -> Self {
        Self { speaking: false, level: -127, loud_packets: 0, loud_at: None, changed_at: None }
    }
}

impl Detector {
    /// A packet with this level arrived.
    pub fn hear(&mut self, level: i8, now: Instant) -> Option<SpeakingState> {
        self.level = smooth(self.level, level);
        if level > LEVEL_START_DBOV {
            self.loud_packets = self.loud_packets.saturating_add(1);
        } else {
            self.loud_packets = 0;
        }
        if level > LEVEL_STOP_DBOV && (self.speaking || self.loud_packets >= PACKETS_TO_START) {
            self.loud_at = Some(now);
        }
        let starts = !self.speaking && self.loud_packets >= PACKETS_TO_START && self.may_change(now);
        if starts {
            return Some(self.change(true, now));
        }
        self.tick(now)
    }

    /// Time passed, perhaps without packets: senders stop sending in silence.
    pub fn tick(&mut self, now: Instant) -> Option<SpeakingState> {
        let ended = self.speaking && self.deadline().is_some_and(|at| now >= at) && self.may_change(now);
        ended.then(|| self.change(false, now))
    }

    /// Not forwarded any more: whatever they say, nobody hears them speak.
    pub fn silence(&mut self, now: Instant) -> Option<SpeakingState> {
        self.loud_packets = 0;
        self.loud_at = None;
        self.level = -127;
        self.speaking.then(|| self.change(false, now))
    }

    /// When [`Self::tick`] has something to say, unless packets come before.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let loud_at = self.loud_at?;
        self.speaking.then(|| loud_at + HOLD)
    }

    #[must_use]
    pub fn is_speaking(&self) -> bool {
        self.speaking
    }

    /// Smoothed level, dBov.
    #[must_use]
    pub fn level(&self) -> i8 {
        self.level
    }

    fn may_change(&self, now: Instant) -> bool {
        self.changed_at.is_none_or(|at| now.saturating_duration_since(at) >= CHANGE_INTERVAL_MIN)
    }

    fn change(&mut self, speaking: bool, now: Instant) -> SpeakingState {
        self.speaking = speaking;
        self.changed_at = Some(now);
        if speaking { SpeakingState::Started } else { SpeakingState::Stopped }
    }
}

/// Quick to rise, slow to fall, so that the loudest stay loud between syllables.
fn smooth(before: i8, now: i8) -> i8 {
    let now = now.clamp(-127, 0);
    if now >= before { now } else { before - ((before - now) / 8).max(1) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PACKET: Duration = Duration::from_millis(20);

    #[test]
    fn speech_starts_with_the_second_loud_packet_and_a_click_does_not() {
        let (mut detector, start) = (Detector::default(), Instant::now());

        assert_eq!(detector.hear(-20, start), None);
        assert_eq!(detector.hear(-90, start + PACKET), None);
        assert_eq!(detector.hear(-20, start + PACKET * 2), None);
        assert_eq!(detector.hear(-20, start + PACKET * 3), Some(SpeakingState::Started));
    }

    #[test]
    fn a_short_pause_does_not_end_speech_and_a_long_one_does() {
        let (mut detector, start) = (Detector::default(), Instant::now());
        detector.hear(-20, start);
        detector.hear(-20, start);

        assert_eq!(detector.hear(-90, start + HOLD - PACKET), None);
        assert_eq!(detector.hear(-90, start + HOLD), Some(SpeakingState::Stopped));
    }

    #[test]
    fn speech_ends_without_packets_too() {
        let (mut detector, start) = (Detector::default(), Instant::now());
        detector.hear(-20, start);
        detector.hear(-20, start);

        let deadline = detector.deadline().unwrap();

        assert_eq!(detector.tick(deadline - PACKET), None);
        assert_eq!(detector.tick(deadline), Some(SpeakingState::Stopped));
        assert_eq!(detector.deadline(), None);
    }

    #[test]
    fn a_muted_speaker_stops_at_once() {
        let (mut detector, start) = (Detector::default(), Instant::now());
        detector.hear(-20, start);
        detector.hear(-20, start);

        assert_eq!(detector.silence(start), Some(SpeakingState::Stopped));
        assert_eq!(detector.silence(start), None);
    }

    proptest! {
        #[test]
        fn changes_alternate_and_never_exceed_ten_a_second(levels in proptest::collection::vec((-127i8..=0, 1u64..400), 1..300)) {
            let (mut detector, mut now) = (Detector::default(), Instant::now());
            let (mut last, mut last_at) = (SpeakingState::Stopped, None::<Instant>);
            for (level, wait_ms) in levels {
                now += Duration::from_millis(wait_ms);
                if let Some(change) = detector.hear(level, now) {
                    prop_assert_ne!(change, last);
                    prop_assert!(last_at.is_none_or(|at| now - at >= CHANGE_INTERVAL_MIN));
                    (last, last_at) = (change, Some(now));
                }
            }
        }
    }
}
