//! May this event be sent? The authorisation rules of the specification, on ruma's checks.
//!
//! [`check_state_independent`] asks once whether the events an event names as its witnesses fit;
//! [`check`] asks whether a given state allows it, and is asked up to three times for an event
//! from elsewhere (see [`crate::receive`]). [`Powers`] and [`facts`] answer the questions the rest
//! of the server has about a room; they never fail, however odd the room's state is.
//!
//! Source: <https://spec.matrix.org/v1.19/server-server-api/#authorisation-rules>.

pub mod facts;
mod powers;

use std::sync::Arc;

use ruma::{
    EventId, OwnedEventId,
    events::StateEventType,
    state_res::{check_state_dependent_auth_rules, check_state_independent_auth_rules},
};

pub use self::powers::{PowerField, Powers};
use crate::{
    event::{Pdu, kind},
    versions::Rules,
};

/// A rule said no. Shown to people: `reason` says which, without naming anybody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Refusal {
    pub event_id: OwnedEventId,
    pub reason: String,
}

impl Refusal {
    pub fn new(event_id: &EventId, reason: impl Into<String>) -> Self {
        Self { event_id: event_id.to_owned(), reason: reason.into() }
    }
}

/// Checks the rules that need no state: the create event itself, or else whether the
/// `auth_events` are the right ones, of this room and none of them refused.
///
/// `fetch` must know every event named in `auth_events`, and the create event.
pub fn check_state_independent(
    event: &Pdu,
    rules: &Rules,
    fetch: impl Fn(&EventId) -> Option<Arc<Pdu>>,
) -> Result<(), Refusal> {
    check_state_independent_auth_rules(&rules.authorization, event, fetch)
        .map_err(|reason| Refusal::new(&event.event_id, reason))
}

/// Checks whether a state of the room allows the event. `state` gives the event at a type and
/// state key, if there is one; it is asked only for what [`crate::build::auth_types`] lists.
pub fn check(event: &Pdu, rules: &Rules, state: impl Fn(&str, &str) -> Option<Arc<Pdu>>) -> Result<(), Refusal> {
    let state = |kind: &StateEventType, key: &str| state(kind::of_auth_state(kind), key);
    check_state_dependent_auth_rules(&rules.authorization, event, state)
        .map_err(|reason| Refusal::new(&event.event_id, reason))
}
