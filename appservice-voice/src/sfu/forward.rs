//! Who gets which slot, and how a speaker's packets become the slot's stream. Pure.
//!
//! A listener has a fixed number of slots (its `recvonly` sections), each one RTP stream for life. With no more speakers
//! than slots the mapping never changes. With more, the loudest and then the latest speakers have the slots, and a
//! speaker keeps its slot for as long as nobody who deserves one more is without.

use std::time::Instant;

/// RTP clock of Opus, ticks per millisecond.
const TICKS_PER_MS: u64 = 48;
/// Ticks of one usual packet (20 ms), the least step when a slot changes hands.
const TICKS_PER_PACKET: u32 = 960;

/// Bring `slots` in line with `ranked`, who are those to be heard, the most deserving first.
///
/// Whoever is among the first `slots.len()` has a slot afterwards, whoever is not in `ranked` has none, and nobody moves
/// from one slot to another. Returns whether anything changed.
pub fn assign<K: Copy + Eq>(slots: &mut [Option<K>], ranked: &[K]) -> bool {
    let mut changed = false;
    for slot in slots.iter_mut() {
        if slot.is_some_and(|holder| !ranked.contains(&holder)) {
            *slot = None;
            changed = true;
        }
    }
    let deserving = &ranked[..ranked.len().min(slots.len())];
    for &speaker in deserving {
        if slots.contains(&Some(speaker)) {
            continue;
        }
        let free = slots.iter().position(Option::is_none);
        let undeserved = || slots.iter().position(|slot| slot.is_some_and(|holder| !deserving.contains(&holder)));
        if let Some(at) = free.or_else(undeserved) {
            slots[at] = Some(speaker);
            changed = true;
        }
    }
    changed
}

/// Where a packet stands in the stream of its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Extended sequence number.
    pub seq: u64,
    /// RTP ticks.
    pub time: u32,
    /// The first packet after a change of hands; set the marker.
    pub first: bool,
}

/// Makes one unbroken stream out of the streams of the speakers that have a slot in turn.
#[derive(Debug)]
pub struct Rewriter<S> {
    source: Option<S>,
    /// Of the first packet of the present source.
    source_seq: u64,
    source_time: u32,
    /// Of the packet that it became.
    out_seq: u64,
    out_time: u32,
    last_seq: u64,
    last_time: u32,
    last_at: Option<Instant>,
    /// Which of the numbers up to `last_seq` were given: bit n stands for `last_seq - n`.
    given: u64,
}

impl<S> Default for Rewriter<S> {
    fn default() -> Self {
        Self {
            source: None,
            source_seq: 0,
            source_time: 0,
            // Receivers begin with rollover counter 0, so streams begin far below 65,536.
            out_seq: 0,
            out_time: 0,
            last_seq: 0,
            last_time: 0,
            last_at: None,
            // Number 0 is never given, and so counts as given.
            given: 1,
        }
    }
}

impl<S: Copy + Eq> Rewriter<S> {
    /// Place a packet of `source`. `None`: it is older than the source's first packet here, or much too late, or came
    /// before, so it has no place. No number is given twice: the cipher must never seal two packets under one.
    ///
    /// Call [`Self::interrupt`] when packets of a source were held back in between.
    pub fn place(&mut self, source: S, seq: u64, time: u32, now: Instant) -> Option<Place> {
        let first = self.source != Some(source);
        if first {
            let ticks_since = self.last_at.map_or(0, |at| {
                let ms = u64::try_from(now.saturating_duration_since(at).as_millis()).unwrap_or(u64::MAX);
                // Truncation is what RTP time does every day.
                (ms.wrapping_mul(TICKS_PER_MS)) as u32
            });
            self.source = Some(source);
            self.source_seq = seq;
            self.source_time = time;
            self.out_seq = self.last_seq + 1;
            self.out_time = self.last_time.wrapping_add(ticks_since.max(TICKS_PER_PACKET));
        }
        let seq = self.out_seq + seq.checked_sub(self.source_seq)?;
        let time = self.out_time.wrapping_add(time.wrapping_sub(self.source_time));
        if let Some(behind) = self.last_seq.checked_sub(seq) {
            let bit = u32::try_from(behind).ok().and_then(|behind| 1_u64.checked_shl(behind))?;
            if self.given & bit != 0 {
                return None;
            }
            self.given |= bit;
        } else {
            let ahead = u32::try_from(seq - self.last_seq).ok();
            self.given = ahead.and_then(|ahead| self.given.checked_shl(ahead)).unwrap_or(0) | 1;
            self.last_seq = seq;
            self.last_time = time;
            self.last_at = Some(now);
        }
        Some(Place { seq, time, first })
    }

    /// The next packet starts anew, even from the same source: what was held back is not loss.
    pub fn interrupt(&mut self) {
        self.source = None;
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, time::Duration};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn with_slots_for_all_nobody_ever_moves() {
        let mut slots = [None; 4];

        assert!(assign(&mut slots, &[1, 2, 3]));
        let before = slots;
        assert!(!assign(&mut slots, &[3, 1, 2]));

        assert_eq!(slots, before);
    }

    #[test]
    fn a_louder_speaker_takes_the_slot_of_the_one_who_deserves_it_least() {
        let mut slots = [Some(1), Some(2)];

        assign(&mut slots, &[3, 1, 2]);

        assert_eq!(slots, [Some(1), Some(3)]);
    }

    #[test]
    fn who_left_frees_the_slot_for_the_next() {
        let mut slots = [Some(1), Some(2)];

        assign(&mut slots, &[2, 5]);

        assert_eq!(slots, [Some(5), Some(2)]);
    }

    #[test]
    fn a_change_of_speaker_continues_numbers_and_time() {
        let (mut rewriter, start) = (Rewriter::default(), Instant::now());

        let first = rewriter.place('a', 70_000, 4_000_000_000, start).unwrap();
        let second = rewriter.place('a', 70_001, 4_000_000_960, start + Duration::from_millis(20)).unwrap();
        let other = rewriter.place('b', 12, 5, start + Duration::from_millis(120)).unwrap();

        assert_eq!((first.seq, first.first), (1, true));
        assert_eq!((second.seq, second.time.wrapping_sub(first.time), second.first), (2, 960, false));
        assert_eq!((other.seq, other.time.wrapping_sub(second.time), other.first), (3, 4800, true));
    }

    #[test]
    fn what_was_held_back_leaves_no_gap() {
        let (mut rewriter, now) = (Rewriter::default(), Instant::now());
        let before = rewriter.place('a', 10, 0, now).unwrap();

        rewriter.interrupt();
        let after = rewriter.place('a', 900_000, 0, now).unwrap();

        assert_eq!((after.seq, after.first), (before.seq + 1, true));
    }

    #[test]
    fn a_late_packet_keeps_its_place_and_one_from_before_the_change_has_none() {
        let (mut rewriter, now) = (Rewriter::default(), Instant::now());
        rewriter.place('a', 10, 0, now);
        rewriter.place('a', 12, 1920, now);

        let late = rewriter.place('a', 11, 960, now).unwrap();
        rewriter.place('b', 500, 0, now);

        assert_eq!(late.seq, 2);
        assert_eq!(rewriter.place('b', 499, 0, now), None);
    }

    #[test]
    fn a_packet_that_came_before_or_much_too_late_has_no_place() {
        let (mut rewriter, now) = (Rewriter::default(), Instant::now());
        rewriter.place('a', 10, 0, now);
        rewriter.place('a', 13, 0, now);

        assert_eq!(rewriter.place('a', 13, 0, now), None);
        assert_eq!(rewriter.place('a', 12, 0, now).unwrap().seq, 3);
        assert_eq!(rewriter.place('a', 12, 0, now), None);
        rewriter.place('a', 100, 0, now);
        assert_eq!(rewriter.place('a', 11, 0, now), None);
    }

    proptest! {
        #[test]
        fn no_number_is_given_twice(packets in proptest::collection::vec((0u8..2, 0u64..200, any::<bool>()), 1..300)) {
            let (mut rewriter, now, mut seen) = (Rewriter::default(), Instant::now(), HashSet::new());
            for (source, seq, interrupted) in packets {
                if interrupted { rewriter.interrupt() }
                if let Some(place) = rewriter.place(source, 70_000 + seq, 7, now) {
                    prop_assert!(seen.insert(place.seq));
                }
            }
        }

        #[test]
        fn the_deserving_have_slots_and_only_once(
            ranked in proptest::sample::subsequence((0u8..12).collect::<Vec<_>>(), 0..12).prop_shuffle(),
            slots in proptest::collection::vec(proptest::option::of(0u8..12), 0..6),
        ) {
            let mut seen = HashSet::new();
            let before: Vec<_> = slots.into_iter().map(|slot| slot.filter(|&k| seen.insert(k))).collect();
            let mut after = before.clone();

            let changed = assign(&mut after, &ranked);

            let held: Vec<_> = after.iter().flatten().collect();
            prop_assert_eq!(held.iter().collect::<HashSet<_>>().len(), held.len());
            prop_assert!(held.iter().all(|k| ranked.contains(k)));
            prop_assert!(ranked.iter().take(after.len()).all(|k| held.contains(&k)));
            prop_assert_eq!(changed, before != after);
            for (at, holder) in before.iter().enumerate() {
                let stays = holder.is_some_and(|k| ranked.iter().take(after.len()).any(|&r| r == k));
                prop_assert!(!stays || after[at] == *holder);
            }
        }

        #[test]
        fn each_packet_of_a_slot_has_a_number_of_its_own(turns in proptest::collection::vec((0u8..3, 1u64..30), 1..40)) {
            let (mut rewriter, now) = (Rewriter::default(), Instant::now());
            let (mut seen, mut highest) = (HashSet::new(), 0);
            for (source, packets) in turns {
                rewriter.interrupt();
                for n in 0..packets {
                    let place = rewriter.place(source, 100_000 + n, 7, now).unwrap();
                    prop_assert!(seen.insert(place.seq));
                    prop_assert_eq!(place.seq, highest + 1);
                    highest = place.seq;
                }
            }
        }
    }
}
