//! The state of a room where forks meet: state resolution, versions 2 and 2.1.
//!
//! [`start`] works on numbers alone and finds what the forks disagree on. Where they disagree a
//! [`Resolution`] says which events it needs, is given them, and ends with the resolved state; it
//! holds nothing borrowed, so its last step can run where it blocks nobody. The algorithm itself
//! is ruma's. It is handed only what can matter: the keys in conflict, the few state events that
//! authorise those, and auth chains without their common part ([`AuthGraph::difference`]).
//!
//! Invariant: the answer depends on the set of states alone, not on their order.
//!
//! Source: <https://spec.matrix.org/v1.19/rooms/v12/#state-resolution>.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use ruma::{
    EventId, OwnedEventId,
    events::{StateEventType, TimelineEventType},
    state_res::{self, StateMap, utils::event_id_set::EventIdSet},
};

use crate::{
    build::auth_types,
    event::{Pdu, kind},
    graph::{AuthGraph, Unknown},
    state::{EventNumber, State, StateKeyNumber},
    versions::{self, Rules},
};

/// A type and a state key.
pub type StateKey = (String, String);

/// Whether there is anything to resolve.
#[derive(Debug)]
pub enum Start {
    /// All states are the same where it counts; this is it.
    Agreed(State),
    /// They are not.
    Forked(Box<Resolution>),
}

/// What a resolution needs next, or how it ended.
#[derive(Debug)]
pub enum Step {
    /// Load these events, whole, and call [`Resolution::supply_events`].
    Events(Vec<EventNumber>),
    /// Look up the numbers of these state keys and call [`Resolution::supply_keys`]. A key that
    /// has no number stands in no state: leave it out.
    Keys(Vec<StateKey>),
    Done(State),
}

/// Why no state could be found. All of these mean that our own storage is damaged.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    #[error("{} events needed to resolve the state were not found", .0.len())]
    EventsMissing(Vec<EventNumber>),
    #[error("event {0} stands in the state but has no state key")]
    NotState(OwnedEventId),
    #[error("the state key of event {0} has no number")]
    KeyMissing(OwnedEventId),
    #[error("state resolution: {0}")]
    Algorithm(#[from] state_res::Error),
}

/// A state resolution under way.
#[derive(Debug)]
pub struct Resolution {
    rules: &'static Rules,
    unconflicted: State,
    /// For each state, its entries at the keys in conflict.
    forks: Vec<Vec<(StateKeyNumber, EventNumber)>>,
    /// For each state, what vouches for it but not for all.
    chains: Vec<Vec<EventNumber>>,
    /// The conflicted state subgraph; empty where the version knows none.
    subgraph: Vec<EventNumber>,
    needed: Vec<EventNumber>,
    events: HashMap<EventNumber, Arc<Pdu>>,
    by_id: HashMap<OwnedEventId, EventNumber>,
    keys: BTreeMap<StateKey, StateKeyNumber>,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Events,
    Keys,
    Witnesses,
    Ready,
}

/// Compares the states and prepares what a resolution needs.
///
/// # Errors
/// The events of the states, or of what vouches for them, that `graph` does not hold yet.
pub fn start(rules: &'static Rules, states: &[State], graph: &AuthGraph) -> Result<Start, Unknown> {
    let (unconflicted, forks) = split(states);
    if forks.iter().all(Vec::is_empty) {
        return Ok(Start::Agreed(unconflicted));
    }
    let events_of = |state: &State| state.iter().map(|entry| entry.1).collect::<Vec<_>>();
    let chains = graph.difference(states.iter().map(events_of))?;
    let conflicted: BTreeSet<EventNumber> = forks.iter().flatten().map(|entry| entry.1).collect();
    let mut full = graph.set_of(conflicted.iter().copied())?;
    let mut subgraph = Vec::new();
    if versions::state_resolution(rules).consider_conflicted_state_subgraph {
        let set = graph.conflicted_subgraph(conflicted)?;
        subgraph = graph.numbers_of(&set).collect();
        full.unite(&set);
    }
    for chain in &chains {
        full.unite(chain);
    }
    // Events are ordered along the history of the power levels even where these are agreed on.
    let mut read = graph.power_levels_among(events_of(&unconflicted))?;
    read.unite(&full);
    Ok(Start::Forked(Box::new(Resolution {
        rules,
        unconflicted,
        forks,
        chains: chains.iter().map(|chain| graph.numbers_of(chain).collect()).collect(),
        subgraph,
        needed: graph.numbers_of(&graph.needed_for(&read)).collect(),
        events: HashMap::new(),
        by_id: HashMap::new(),
        keys: BTreeMap::new(),
        phase: Phase::Events,
    })))
}

/// What all states agree on, and for each state its other entries.
fn split(states: &[State]) -> (State, Vec<Vec<(StateKeyNumber, EventNumber)>>) {
    let Some((first, others)) = states.split_first() else {
        return Default::default();
    };
    let unconflicted: State =
        first.iter().filter(|&(key, event)| others.iter().all(|other| other.get(key) == Some(event))).collect();
    let rest = |state: &State| state.iter().filter(|&(key, _)| unconflicted.get(key).is_none()).collect::<Vec<_>>();
    let forks = states.iter().map(rest).collect();
    (unconflicted, forks)
}

impl Resolution {
    /// What is needed next. The last step does the work and may take milliseconds.
    pub fn step(&mut self) -> Result<Step, ResolveError> {
        loop {
            match self.phase {
                Phase::Events => {
                    let missing = self.missing(&self.needed);
                    if !missing.is_empty() {
                        return Ok(Step::Events(missing));
                    }
                    self.phase = Phase::Keys;
                }
                Phase::Keys => return Ok(Step::Keys(self.wanted_keys()?.into_iter().collect())),
                Phase::Witnesses => {
                    let missing = self.missing(&self.witnesses());
                    if !missing.is_empty() {
                        return Ok(Step::Events(missing));
                    }
                    self.phase = Phase::Ready;
                }
                Phase::Ready => return self.finish().map(Step::Done),
            }
        }
    }

    /// Answers [`Step::Events`].
    ///
    /// # Errors
    /// If an event asked for is not among them.
    pub fn supply_events(
        &mut self,
        events: impl IntoIterator<Item = (EventNumber, Arc<Pdu>)>,
    ) -> Result<(), ResolveError> {
        for (number, event) in events {
            self.by_id.insert(event.event_id.clone(), number);
            self.events.insert(number, event);
        }
        let asked = match self.phase {
            Phase::Events => self.missing(&self.needed),
            _ => self.missing(&self.witnesses()),
        };
        if asked.is_empty() { Ok(()) } else { Err(ResolveError::EventsMissing(asked)) }
    }

    /// Answers [`Step::Keys`].
    pub fn supply_keys(&mut self, keys: impl IntoIterator<Item = (StateKey, StateKeyNumber)>) {
        self.keys.extend(keys);
        if self.phase == Phase::Keys {
            self.phase = Phase::Witnesses;
        }
    }

    fn missing(&self, events: &[EventNumber]) -> Vec<EventNumber> {
        events.iter().filter(|event| !self.events.contains_key(event)).copied().collect()
    }

    /// The full conflicted set.
    fn conflicted(&self) -> BTreeSet<EventNumber> {
        let forks = self.forks.iter().flatten().map(|entry| &entry.1);
        forks.chain(self.chains.iter().flatten()).chain(&self.subgraph).copied().collect()
    }

    /// The keys at which the conflicted events stand, and those that authorise them.
    fn wanted_keys(&self) -> Result<BTreeSet<StateKey>, ResolveError> {
        let mut wanted = BTreeSet::new();
        wanted.insert((kind::CREATE.to_owned(), String::new()));
        for number in self.conflicted() {
            let event = &self.events[&number];
            wanted.insert(key_of(event)?);
            let state_key = event.state_key.as_deref();
            // A content that cannot be read authorises nothing and is refused further on.
            let types = auth_types(&event.kind, &event.sender, state_key, &event.content, self.rules);
            let types = types.unwrap_or_default().into_iter();
            wanted.extend(types.map(|(kind, key)| (kind.to_owned(), key)));
        }
        Ok(wanted)
    }

    /// The events all states agree on at the wanted keys.
    fn witnesses(&self) -> Vec<EventNumber> {
        self.keys.values().filter_map(|&key| self.unconflicted.get(key)).collect()
    }

    fn finish(&self) -> Result<State, ResolveError> {
        let witnesses = self.witnesses();
        let mut resolved: BTreeMap<StateKeyNumber, EventNumber> = BTreeMap::new();
        for group in self.groups()? {
            for (number, event) in self.resolve(&group, &witnesses)? {
                let key = self.keys.get(&key_of(event)?);
                let key = key.ok_or_else(|| ResolveError::KeyMissing(event.event_id.clone()))?;
                if self.unconflicted.get(*key).is_none() {
                    resolved.insert(*key, number);
                }
            }
        }
        Ok(self.unconflicted.iter().chain(resolved).collect())
    }

    /// The conflicted types, in groups within which ruma tells all types apart (see [`kind`]):
    /// first those it names as we do, then each other one by itself. Only types that authorise
    /// nothing are ever renamed, so the groups do not affect each other.
    fn groups(&self) -> Result<Vec<Group>, ResolveError> {
        let mut renamed = BTreeSet::new();
        for number in self.conflicted() {
            let event = &self.events[&number];
            if is_renamed(&event.kind) {
                renamed.insert(event.kind.clone());
            }
        }
        let mut groups = vec![Group::AsNamed];
        groups.extend(renamed.into_iter().map(Group::Renamed));
        Ok(groups)
    }

    /// Runs the algorithm for one group; gives the resolved events of that group.
    fn resolve(&self, group: &Group, witnesses: &[EventNumber]) -> Result<Vec<(EventNumber, &Arc<Pdu>)>, ResolveError> {
        let takes_part = |number: &EventNumber| group.takes_part(&self.events[number].kind);
        let mut maps = Vec::with_capacity(self.forks.len());
        for fork in &self.forks {
            let mut map = StateMap::new();
            let conflicted = fork.iter().map(|entry| &entry.1).filter(|number| takes_part(number));
            for number in conflicted.chain(witnesses) {
                let event = &self.events[number];
                let (kind, state_key) = key_of(event)?;
                map.insert((StateEventType::from(kind), state_key), event.event_id.clone());
            }
            maps.push(map);
        }
        let ids = |numbers: &[EventNumber]| -> EventIdSet<OwnedEventId> {
            let ids = numbers.iter().filter(|number| takes_part(number));
            ids.map(|number| self.events[number].event_id.clone()).collect()
        };
        let resolved = state_res::resolve(
            &self.rules.authorization,
            versions::state_resolution(self.rules),
            maps.iter(),
            self.chains.iter().map(|chain| ids(chain)).collect(),
            |id: &EventId| self.by_id.get(id).map(|number| self.events[number].clone()),
            |_| Some(ids(&self.subgraph)),
        )?;
        let numbers = resolved.into_values().map(|id| self.by_id[&id]);
        let events = numbers.map(|number| (number, &self.events[&number]));
        Ok(events.filter(|(_, event)| group.answers_for(&event.kind)).collect())
    }
}

/// A group of types resolved together.
#[derive(Debug)]
enum Group {
    /// All types ruma names as we do.
    AsNamed,
    /// One type it renames, beside the types that authorise.
    Renamed(String),
}

impl Group {
    fn takes_part(&self, kind: &str) -> bool {
        self.answers_for(kind) || kind::AUTHORISING.contains(&kind)
    }

    fn answers_for(&self, kind: &str) -> bool {
        match self {
            Self::AsNamed => !is_renamed(kind),
            Self::Renamed(renamed) => renamed == kind,
        }
    }
}

fn is_renamed(kind: &str) -> bool {
    TimelineEventType::from(kind).to_string() != kind
}

fn key_of(event: &Pdu) -> Result<StateKey, ResolveError> {
    match &event.state_key {
        Some(state_key) => Ok((event.kind.clone(), state_key.clone())),
        None => Err(ResolveError::NotState(event.event_id.clone())),
    }
}
