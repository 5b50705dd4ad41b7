//! The end of a room's graph: the events nothing follows yet.

use crate::event::PREV_EVENTS_MAX;

/// The most heads a room keeps. Above this the oldest of other servers are forgotten: they are
/// still part of the room, but our next event will not tie them in.
pub const HEADS_MAX: usize = 60;

/// An event nothing follows yet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Head<E> {
    pub event: E,
    pub depth: u64,
    /// Whether our own server sent it.
    pub own: bool,
}

/// The heads after an event that follows `prev_events`, at most [`HEADS_MAX`].
///
/// Call it for accepted events only: rejected and soft-failed events neither become heads nor
/// cover any. An event something already follows (`followed`) covers heads without becoming one.
pub fn after<E: Clone + Ord>(heads: &[Head<E>], new: Head<E>, prev_events: &[E], followed: bool) -> Vec<Head<E>> {
    let mut heads: Vec<_> =
        heads.iter().filter(|head| head.event != new.event && !prev_events.contains(&head.event)).cloned().collect();
    // Should everything be covered by an event that is itself followed by unseen ones, keep it:
    // a room is never without a head.
    if !followed || heads.is_empty() {
        heads.push(new);
    }
    prune(heads)
}

/// At most [`HEADS_MAX`] heads: our own first, then the deepest. In a settled order.
pub fn prune<E: Ord>(mut heads: Vec<Head<E>>) -> Vec<Head<E>> {
    heads.sort_by(|a, b| b.own.cmp(&a.own).then(b.depth.cmp(&a.depth)).then_with(|| a.event.cmp(&b.event)));
    heads.truncate(HEADS_MAX);
    heads
}

/// The heads our next event follows, at most [`PREV_EVENTS_MAX`], and its depth.
///
/// The rest stay heads, and the events after the next one tie them in.
pub fn next<E: Clone + Ord>(heads: &[Head<E>], depth_max: u64) -> (Vec<E>, u64) {
    let mut chosen = prune(heads.to_vec());
    chosen.truncate(PREV_EVENTS_MAX);
    let deepest = chosen.iter().map(|head| head.depth).max().unwrap_or(0);
    let depth = deepest.saturating_add(1).min(depth_max);
    (chosen.into_iter().map(|head| head.event).collect(), depth)
}
