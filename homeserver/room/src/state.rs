//! The state of a room in numbers: which event stands at which (type, state key).
//!
//! Storage gives each (type, state key) and each event a number; a [`State`] is the whole map, a
//! few bytes per entry, and a [`Layer`] is the difference between two of them. A snapshot is
//! stored as a short chain of layers (see [`next_layer`]). Nothing here knows what the numbers
//! mean, nor reads events.

mod code;
mod layer;

pub use self::{
    code::{Corrupt, decode, encode},
    layer::{LAYERS_MAX, Layer, Placement, flatten, next_layer},
};

/// The number of a (type, state key), given by storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateKeyNumber(pub u64);

/// The number of an event, given by storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventNumber(pub u64);

/// The whole state of a room at some point: one event for each state key, sorted by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    entries: Vec<(StateKeyNumber, EventNumber)>,
}

impl State {
    /// The event at a state key.
    pub fn get(&self, key: StateKeyNumber) -> Option<EventNumber> {
        let at = self.entries.binary_search_by_key(&key, |entry| entry.0).ok()?;
        Some(self.entries[at].1)
    }

    /// Puts an event at a state key and gives the one that stood there.
    pub fn insert(&mut self, key: StateKeyNumber, event: EventNumber) -> Option<EventNumber> {
        match self.entries.binary_search_by_key(&key, |entry| entry.0) {
            Ok(at) => Some(std::mem::replace(&mut self.entries[at].1, event)),
            Err(at) => {
                self.entries.insert(at, (key, event));
                None
            }
        }
    }

    /// All entries, by ascending key.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (StateKeyNumber, EventNumber)> + '_ {
        self.entries.iter().copied()
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What must change for this state to become `newer`.
    pub fn diff(&self, newer: &State) -> Layer {
        let mut added = Vec::new();
        let mut removed = Vec::new();
        let mut old = self.entries.iter().copied().peekable();
        for &(key, event) in &newer.entries {
            while let Some((gone, _)) = old.next_if(|entry| entry.0 < key) {
                removed.push(gone);
            }
            let stood = old.next_if(|entry| entry.0 == key).map(|entry| entry.1);
            if stood != Some(event) {
                added.push((key, event));
            }
        }
        removed.extend(old.map(|entry| entry.0));
        Layer::from_sorted(added, removed)
    }

    /// This state with a change applied.
    #[must_use]
    pub fn apply(&self, change: &Layer) -> State {
        let mut entries = Vec::with_capacity(self.entries.len() + change.added().len());
        let mut added = change.added().iter().copied().peekable();
        for &entry in &self.entries {
            while let Some(new) = added.next_if(|new| new.0 < entry.0) {
                entries.push(new);
            }
            if let Some(new) = added.next_if(|new| new.0 == entry.0) {
                entries.push(new);
            } else if change.removed().binary_search(&entry.0).is_err() {
                entries.push(entry);
            }
        }
        entries.extend(added);
        State { entries }
    }
}

impl FromIterator<(StateKeyNumber, EventNumber)> for State {
    /// Collects in any order; of two events at one key the later one stays.
    fn from_iter<I: IntoIterator<Item = (StateKeyNumber, EventNumber)>>(entries: I) -> Self {
        Self { entries: layer::sorted(entries) }
    }
}
