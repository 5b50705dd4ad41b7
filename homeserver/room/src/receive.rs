//! What becomes of an event another server sent us: steps 4 to 6 of the checks on receipt.
//!
//! A [`Receive`] decides about one event. It says what it needs, is given it, and ends with a
//! [`Verdict`]; it never waits and stores nothing. Steps 1 to 3 (format, signatures, hash) are
//! behind an event already when it is a [`Pdu`]. For a batch, take the events in
//! [`crate::graph::order`] and fill the [`crate::graph::gaps`] first. Policy servers (step 7) are
//! asked by the caller, after an [`Verdict::Accept`].
//!
//! ```ignore
//! let mut receive = Receive::new(event, rules, Aim::Live);
//! let verdict = loop {
//!     match receive.step() {
//!         Step::NeedAuth(ids) => receive.supply(load_or_fetch(ids).await?),
//!         Step::NeedState { at, keys } => receive.supply(state_at(at, keys).await?),
//!         Step::Done(verdict) => break verdict,
//!     }
//! };
//! ```
//!
//! Source: <https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu>.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use ruma::OwnedEventId;

use crate::{
    auth::{self, Refusal},
    build::auth_types,
    event::{Pdu, create_event_id, kind},
    resolve::StateKey,
    versions::{self, Rules},
};

/// The most previous events to fetch one by one before asking for the state instead.
pub const MISSING_PREV_EVENTS_MAX: usize = 100;
/// The most missing witnesses to fetch for one event, all their witnesses included.
pub const MISSING_AUTH_EVENTS_MAX: usize = 500;

/// What the event is wanted for, which says how far it is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aim {
    /// A new event: all checks.
    Live,
    /// An event of the past, fetched to be shown: the current state has no say.
    Past,
    /// A part of a state or an auth chain, whose own place in the room is not known: only what
    /// vouches for it is checked.
    Outlier,
}

/// Which state of the room is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateAt {
    /// The state before the event: what the states after its previous events resolve to.
    BeforeEvent,
    /// What the states at the room's heads resolve to.
    Now,
}

/// What is needed next, or how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// These events, from storage or from other servers, with their `rejected` as stored.
    NeedAuth(Vec<OwnedEventId>),
    /// The events at these (type, state key), of those that are in that state.
    NeedState {
        at: StateAt,
        keys: Vec<StateKey>,
    },
    Done(Verdict),
}

/// How the receiving of one event ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Store it, let it change the state, show it.
    Accept,
    /// Store it and let it change the state after it, but show it to nobody and let no event of
    /// ours follow it.
    SoftFail(Refusal),
    /// Store it as rejected: it changes no state.
    Reject(Refusal),
    /// Nobody gave us what vouches for it. Drop it; it may be decided when it comes again.
    Undecided { missing: Vec<OwnedEventId> },
}

/// The receiving of one event.
#[derive(Debug)]
pub struct Receive {
    event: Arc<Pdu>,
    rules: &'static Rules,
    aim: Aim,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Auth,
    State(StateAt),
    Done(Verdict),
}

impl Receive {
    pub fn new(event: Arc<Pdu>, rules: &'static Rules, aim: Aim) -> Self {
        Self { event, rules, aim, stage: Stage::Auth }
    }

    pub fn event(&self) -> &Arc<Pdu> {
        &self.event
    }

    /// What is needed next. Asking twice gives the same answer.
    pub fn step(&self) -> Step {
        match &self.stage {
            Stage::Auth => Step::NeedAuth(self.witnesses()),
            Stage::State(at) => Step::NeedState { at: *at, keys: self.state_keys() },
            Stage::Done(verdict) => Step::Done(verdict.clone()),
        }
    }

    /// Answers the last step. Whatever was not asked for is ignored.
    pub fn supply(&mut self, events: impl IntoIterator<Item = Arc<Pdu>>) {
        self.stage = match self.stage {
            Stage::Auth => self.judge_by_witnesses(events),
            Stage::State(at) => self.judge_by_state(at, events),
            Stage::Done(ref verdict) => Stage::Done(verdict.clone()),
        };
    }

    /// The events that vouch for it, the create event included where it goes without saying.
    fn witnesses(&self) -> Vec<OwnedEventId> {
        let mut ids = self.event.auth_events.clone();
        if versions::room_id_is_create_hash(self.rules) && !self.event.is_create() {
            ids.extend(create_event_id(&self.event.room_id));
        }
        ids
    }

    /// Step 4: do the witnesses fit, and do they allow it?
    fn judge_by_witnesses(&self, events: impl IntoIterator<Item = Arc<Pdu>>) -> Stage {
        let given: HashMap<OwnedEventId, Arc<Pdu>> =
            events.into_iter().map(|event| (event.event_id.clone(), event)).collect();
        let wanted = self.witnesses();
        let missing: Vec<_> = wanted.iter().filter(|id| !given.contains_key(*id)).cloned().collect();
        if !missing.is_empty() {
            return Stage::Done(Verdict::Undecided { missing });
        }
        let allowed = auth::check_state_independent(&self.event, self.rules, |id| given.get(id).cloned())
            .and_then(|()| self.check(wanted.iter().map(|id| given[id].clone())));
        match (allowed, self.aim) {
            (Err(refusal), _) => Stage::Done(Verdict::Reject(refusal)),
            (Ok(()), Aim::Outlier) => Stage::Done(Verdict::Accept),
            // Nothing stands before the beginning of a room.
            (Ok(()), _) if self.event.is_create() => Stage::Done(Verdict::Accept),
            (Ok(()), _) => Stage::State(StateAt::BeforeEvent),
        }
    }

    /// Steps 5 and 6: does the state before it allow it, and does the state now?
    fn judge_by_state(&self, at: StateAt, events: impl IntoIterator<Item = Arc<Pdu>>) -> Stage {
        match (self.check(events), at, self.aim) {
            (Err(refusal), StateAt::BeforeEvent, _) => Stage::Done(Verdict::Reject(refusal)),
            (Err(refusal), StateAt::Now, _) => Stage::Done(Verdict::SoftFail(refusal)),
            (Ok(()), StateAt::BeforeEvent, Aim::Live) => Stage::State(StateAt::Now),
            (Ok(()), ..) => Stage::Done(Verdict::Accept),
        }
    }

    fn check(&self, state: impl IntoIterator<Item = Arc<Pdu>>) -> Result<(), Refusal> {
        let state: BTreeMap<StateKey, Arc<Pdu>> = state
            .into_iter()
            .filter(|event| !event.rejected && event.room_id == self.event.room_id)
            .filter_map(|event| Some(((event.kind.clone(), event.state_key.clone()?), event)))
            .collect();
        auth::check(&self.event, self.rules, |kind, state_key| {
            state.get(&(kind.to_owned(), state_key.to_owned())).cloned()
        })
    }

    fn state_keys(&self) -> Vec<StateKey> {
        let event = &self.event;
        let state_key = event.state_key.as_deref();
        // Step 4 has read the content, so there are types.
        let types = auth_types(&event.kind, &event.sender, state_key, &event.content, self.rules).unwrap_or_default();
        let mut keys: Vec<StateKey> = types.into_iter().map(|(kind, key)| (kind.to_owned(), key)).collect();
        let create = (kind::CREATE.to_owned(), String::new());
        if !keys.contains(&create) {
            keys.push(create);
        }
        keys
    }
}
