//! The two graphs of a room: who vouches for whom, and what came after what.
//!
//! [`AuthGraph`] holds the first in a few bytes per event and answers the questions state
//! resolution asks. The second is never held whole; [`order`] and [`gaps`] look at one batch of
//! it, [`heads`] at its end.

mod auth_chain;
pub mod heads;

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap, HashMap},
};

use ruma::{EventId, OwnedEventId};

pub use self::auth_chain::{AuthGraph, EventSet, Unknown};
use crate::event::Pdu;

/// The order in which to take a batch of events of one room: every event after those of the batch
/// it follows or is vouched for by, otherwise by depth, time and id.
///
/// Gives indices into `events`. No event is lost: should a set of events claim to follow each
/// other in a ring (which hashes make impossible), they come last.
pub fn order(events: &[impl AsRef<Pdu>]) -> Vec<usize> {
    let event = |at: usize| -> &Pdu { events[at].as_ref() };
    let rank = |at: usize| Reverse((event(at).depth, event(at).origin_server_ts_ms(), &event(at).event_id, at));
    let place: HashMap<&EventId, usize> = (0..events.len()).map(|at| (&*event(at).event_id, at)).collect();
    let mut waits_for = vec![0_usize; events.len()];
    let mut followed_by = vec![Vec::new(); events.len()];
    for (at, waits_for) in waits_for.iter_mut().enumerate() {
        let event = event(at);
        let before: BTreeSet<usize> = event
            .prev_events
            .iter()
            .chain(&event.auth_events)
            .filter_map(|id| place.get(&**id).copied())
            .filter(|&other| other != at)
            .collect();
        *waits_for = before.len();
        for other in before {
            followed_by[other].push(at);
        }
    }
    let mut ready: BinaryHeap<_> = (0..events.len()).filter(|&at| waits_for[at] == 0).map(rank).collect();
    let mut ordered = Vec::with_capacity(events.len());
    while let Some(Reverse((.., at))) = ready.pop() {
        ordered.push(at);
        for &next in &followed_by[at] {
            waits_for[next] -= 1;
            if waits_for[next] == 0 {
                ready.push(rank(next));
            }
        }
    }
    if ordered.len() < events.len() {
        let taken: BTreeSet<usize> = ordered.iter().copied().collect();
        ordered.extend((0..events.len()).filter(|at| !taken.contains(at)));
    }
    ordered
}

/// What a batch of events refers to and nobody has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gaps {
    /// Missing previous events: ask for them, or for the state at them.
    pub prev: BTreeSet<OwnedEventId>,
    /// Missing witnesses: without them nothing can be decided.
    pub auth: BTreeSet<OwnedEventId>,
}

/// Finds what a batch refers to that is neither in it nor `known`.
pub fn gaps(events: &[impl AsRef<Pdu>], known: impl Fn(&EventId) -> bool) -> Gaps {
    let inside: BTreeSet<&EventId> = events.iter().map(|event| &*event.as_ref().event_id).collect();
    let missing = |ids: &[OwnedEventId]| -> Vec<OwnedEventId> {
        ids.iter().filter(|id| !inside.contains(&***id) && !known(id)).cloned().collect()
    };
    let mut gaps = Gaps::default();
    for event in events {
        gaps.prev.extend(missing(&event.as_ref().prev_events));
        gaps.auth.extend(missing(&event.as_ref().auth_events));
    }
    gaps
}
