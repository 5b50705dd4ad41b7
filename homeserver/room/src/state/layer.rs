//! How a long history of states is kept in little room: layers of differences.
//!
//! Each snapshot is stored as at most [`LAYERS_MAX`] layers: one that stands on nothing and holds
//! everything, and up to three differences on top. A new snapshot goes on top of the one before
//! it if that is short; otherwise its difference is merged into a deeper layer. As small layers
//! are merged often and large ones seldom, n changes cost far less than n whole states, and a
//! read never touches more than [`LAYERS_MAX`] rows.
//!
//! Invariants: keys ascend strictly within `added` and within `removed`; no key is in both.

use super::{EventNumber, State, StateKeyNumber};

/// The most layers a snapshot consists of.
pub const LAYERS_MAX: usize = 4;

/// The difference between two states.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layer {
    added: Vec<(StateKeyNumber, EventNumber)>,
    removed: Vec<StateKeyNumber>,
}

/// Where the layer of a new snapshot goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// How many of the previous snapshot's layers, from the base, stay underneath. The parent of
    /// the new row is the snapshot that ends with the last of them; none if this is zero.
    pub kept: usize,
    /// What to store on top of them.
    pub layer: Layer,
}

impl Layer {
    /// A change of some entries; a key both added and removed counts as added.
    pub fn new(
        added: impl IntoIterator<Item = (StateKeyNumber, EventNumber)>,
        removed: impl IntoIterator<Item = StateKeyNumber>,
    ) -> Self {
        let added = sorted(added);
        let mut removed: Vec<_> = removed.into_iter().collect();
        removed.sort_unstable();
        removed.dedup();
        removed.retain(|key| added.binary_search_by_key(key, |entry| entry.0).is_err());
        Self { added, removed }
    }

    /// The change one state event makes.
    pub fn one(key: StateKeyNumber, event: EventNumber) -> Self {
        Self { added: vec![(key, event)], removed: Vec::new() }
    }

    /// A layer that stands on nothing.
    pub fn base(state: &State) -> Self {
        Self { added: state.iter().collect(), removed: Vec::new() }
    }

    /// Both lists sorted by the caller and disjoint.
    pub(super) fn from_sorted(added: Vec<(StateKeyNumber, EventNumber)>, removed: Vec<StateKeyNumber>) -> Self {
        Self { added, removed }
    }

    /// The entries set, by ascending key.
    pub fn added(&self) -> &[(StateKeyNumber, EventNumber)] {
        &self.added
    }

    /// The keys that no longer have an event, ascending.
    pub fn removed(&self) -> &[StateKeyNumber] {
        &self.removed
    }

    /// How many keys it touches.
    pub fn len(&self) -> usize {
        self.added.len() + self.removed.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// This change followed by `later`, as one.
    #[must_use]
    pub fn then(&self, later: &Layer) -> Layer {
        let touched = |key: &StateKeyNumber| {
            later.removed.binary_search(key).is_ok() || later.added.binary_search_by_key(key, |entry| entry.0).is_ok()
        };
        let added = self.added.iter().filter(|entry| !touched(&entry.0));
        let removed = self.removed.iter().filter(|key| !touched(key));
        Layer::new(added.chain(&later.added).copied(), removed.chain(&later.removed).copied())
    }
}

/// The state that layers add up to, base first.
pub fn flatten(layers: &[Layer]) -> State {
    layers.iter().fold(State::default(), |state, layer| state.apply(layer))
}

/// Where to store the snapshot that follows another by `change`.
///
/// `parents` are the layers of the snapshot before it, base first; none for the first snapshot of
/// a room. A layer is merged into the one beneath when its size squared reaches twice the change
/// times the size of that layer: then storing such layers again and again would cost more than
/// one merge.
pub fn next_layer(parents: &[Layer], change: &Layer) -> Placement {
    let mut layer = change.clone();
    let mut kept = parents.len();
    let change_size = change.len().max(1);
    while let Some(parent) = kept.checked_sub(1).map(|top| &parents[top]) {
        let outgrown =
            layer.len().saturating_mul(layer.len()) >= change_size.saturating_mul(parent.len()).saturating_mul(2);
        if kept < LAYERS_MAX && !outgrown {
            break;
        }
        layer = parent.then(&layer);
        kept -= 1;
    }
    if kept == 0 {
        // Nothing underneath, so there is nothing to remove.
        layer.removed.clear();
    }
    Placement { kept, layer }
}

/// Sorts entries by key; of two events at one key the later one stays.
pub(super) fn sorted(
    entries: impl IntoIterator<Item = (StateKeyNumber, EventNumber)>,
) -> Vec<(StateKeyNumber, EventNumber)> {
    let mut entries: Vec<_> = entries.into_iter().collect();
    entries.sort_by_key(|entry| entry.0);
    entries.dedup_by(|later, earlier| {
        let same = later.0 == earlier.0;
        if same {
            earlier.1 = later.1;
        }
        same
    });
    entries
}
