//! Which events vouch for which: the graph of `auth_events` of one room.
//!
//! Events get dense numbers in the order they are added; an event is added after all that vouch
//! for it, so edges always lead to smaller numbers and a walk is one pass down a bitset. Edges
//! lie in one array, so a state event costs about 40 bytes. Append-only; to forget, drop it.
//!
//! Add accepted state events only. A rejected event vouches for nobody.

use std::collections::HashMap;

use crate::state::EventNumber;

/// The graph of `auth_events` of one room.
#[derive(Clone, Debug, Default)]
pub struct AuthGraph {
    numbers: Vec<EventNumber>,
    dense: HashMap<EventNumber, u32>,
    /// `edges[ends[n - 1]..ends[n]]` are the dense numbers of what vouches for event `n`.
    ends: Vec<u32>,
    edges: Vec<u32>,
    power_levels: Vec<bool>,
}

/// Events the graph does not hold yet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} events are not in the graph yet", .0.len())]
pub struct Unknown(pub Vec<EventNumber>);

/// A set of events of one graph, as bits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventSet {
    words: Vec<u64>,
}

impl AuthGraph {
    /// Adds an event after those that vouch for it. Adding it again changes nothing.
    ///
    /// `is_power_levels` says whether it is `m.room.power_levels`, whose history state resolution
    /// follows separately.
    ///
    /// # Errors
    /// The witnesses the graph does not hold yet; nothing is added then.
    pub fn insert(
        &mut self,
        event: EventNumber,
        auth_events: &[EventNumber],
        is_power_levels: bool,
    ) -> Result<(), Unknown> {
        if self.dense.contains_key(&event) {
            return Ok(());
        }
        let witnesses = self.lookup(auth_events)?;
        let dense = u32::try_from(self.numbers.len()).expect("a room has fewer than 2^32 events");
        self.edges.extend(witnesses);
        self.ends.push(u32::try_from(self.edges.len()).expect("ten edges an event at most"));
        self.numbers.push(event);
        self.power_levels.push(is_power_levels);
        self.dense.insert(event, dense);
        Ok(())
    }

    pub fn contains(&self, event: EventNumber) -> bool {
        self.dense.contains_key(&event)
    }

    /// Those of the events the graph does not hold yet.
    pub fn missing(&self, events: impl IntoIterator<Item = EventNumber>) -> Vec<EventNumber> {
        events.into_iter().filter(|event| !self.contains(*event)).collect()
    }

    /// How many events it holds.
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// About how much memory it takes, in bytes.
    pub fn bytes(&self) -> usize {
        // A map entry: key, value, a control byte, and a load factor of 7/8.
        const MAP_ENTRY_BYTES: usize = 20;
        self.dense.capacity() * MAP_ENTRY_BYTES
            + self.numbers.capacity() * 8
            + (self.ends.capacity() + self.edges.capacity()) * 4
            + self.power_levels.capacity()
    }

    /// Everything that vouches, directly or not, for the events given. They themselves are in it
    /// only if they vouch for another of them.
    pub fn chain(&self, events: impl IntoIterator<Item = EventNumber>) -> Result<EventSet, Unknown> {
        let mut set = self.empty_set();
        for event in self.lookup_all(events)? {
            for &witness in self.witnesses(event) {
                set.insert(witness);
            }
        }
        self.close(&mut set);
        Ok(set)
    }

    /// For each state, what vouches for it but not for all of the states.
    ///
    /// The union of the answers is the specification's auth difference; handing these sets to an
    /// algorithm that wants whole auth chains gives the same answer, as it only looks for events
    /// that are not in all of them.
    pub fn difference<I>(&self, states: impl IntoIterator<Item = I>) -> Result<Vec<EventSet>, Unknown>
    where
        I: IntoIterator<Item = EventNumber>,
    {
        let mut chains = states.into_iter().map(|state| self.chain(state)).collect::<Result<Vec<_>, _>>()?;
        let Some(mut common) = chains.first().cloned() else {
            return Ok(chains);
        };
        for chain in &chains {
            common.intersect(chain);
        }
        for chain in &mut chains {
            chain.subtract(&common);
        }
        Ok(chains)
    }

    /// All events on any path that leads from one of the conflicted events to another along
    /// `auth_events`, the conflicted events included (state resolution of version 12).
    pub fn conflicted_subgraph(&self, conflicted: impl IntoIterator<Item = EventNumber>) -> Result<EventSet, Unknown> {
        let mut ends = self.empty_set();
        for event in self.lookup_all(conflicted)? {
            ends.insert(event);
        }
        let mut below = ends.clone();
        self.close(&mut below);
        // Of what the conflicted events lead to, keep what leads to a conflicted event. Edges go
        // to smaller numbers, so ascending order sees every end before what leads to it.
        let mut subgraph = ends;
        for event in below.iter() {
            if self.witnesses(event).iter().any(|&witness| subgraph.contains(witness)) {
                subgraph.insert(event);
            }
        }
        Ok(subgraph)
    }

    /// The events, what vouches for each directly, and for every power levels event among either
    /// the same again: all events whose contents state resolution will look at.
    pub(crate) fn needed_for(&self, set: &EventSet) -> EventSet {
        let mut needed = self.empty_set();
        let mut todo: Vec<u32> = set.iter().collect();
        let mut expanded = set.clone();
        while let Some(event) = todo.pop() {
            needed.insert(event);
            for &witness in self.witnesses(event) {
                needed.insert(witness);
                if self.power_levels[witness as usize] && !expanded.contains(witness) {
                    expanded.insert(witness);
                    todo.push(witness);
                }
            }
        }
        needed
    }

    /// Those of the events that are power levels.
    pub(crate) fn power_levels_among(
        &self,
        events: impl IntoIterator<Item = EventNumber>,
    ) -> Result<EventSet, Unknown> {
        let mut set = self.empty_set();
        for event in self.lookup_all(events)? {
            if self.power_levels[event as usize] {
                set.insert(event);
            }
        }
        Ok(set)
    }

    /// The numbers of the events in a set, oldest first.
    pub fn numbers_of<'a>(&'a self, set: &'a EventSet) -> impl Iterator<Item = EventNumber> + 'a {
        set.iter().map(|event| self.numbers[event as usize])
    }

    /// A set of the events given.
    pub fn set_of(&self, events: impl IntoIterator<Item = EventNumber>) -> Result<EventSet, Unknown> {
        let mut set = self.empty_set();
        for event in self.lookup_all(events)? {
            set.insert(event);
        }
        Ok(set)
    }

    fn empty_set(&self) -> EventSet {
        EventSet { words: vec![0; self.numbers.len().div_ceil(64)] }
    }

    fn witnesses(&self, event: u32) -> &[u32] {
        let at = event as usize;
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        &self.edges[start..self.ends[at] as usize]
    }

    /// Adds everything that vouches, directly or not, for the members of a set.
    fn close(&self, set: &mut EventSet) {
        for word in (0..set.words.len()).rev() {
            let mut done = 0_u64;
            // Members of this word may add smaller members to the same word.
            while let Some(bit) = (set.words[word] & !done).checked_ilog2() {
                done |= 1 << bit;
                let event = (word * 64) as u32 + bit;
                for &witness in self.witnesses(event) {
                    set.insert(witness);
                }
            }
        }
    }

    fn lookup(&self, events: &[EventNumber]) -> Result<Vec<u32>, Unknown> {
        self.lookup_all(events.iter().copied())
    }

    fn lookup_all(&self, events: impl IntoIterator<Item = EventNumber>) -> Result<Vec<u32>, Unknown> {
        let mut unknown = Vec::new();
        let mut found = Vec::new();
        for event in events {
            match self.dense.get(&event) {
                Some(&dense) => found.push(dense),
                None => unknown.push(event),
            }
        }
        if unknown.is_empty() { Ok(found) } else { Err(Unknown(unknown)) }
    }
}

impl EventSet {
    fn insert(&mut self, event: u32) {
        self.words[event as usize / 64] |= 1 << (event % 64);
    }

    fn contains(&self, event: u32) -> bool {
        self.words.get(event as usize / 64).is_some_and(|word| word & (1 << (event % 64)) != 0)
    }

    fn intersect(&mut self, other: &EventSet) {
        for (word, other) in self.words.iter_mut().zip(&other.words) {
            *word &= other;
        }
    }

    fn subtract(&mut self, other: &EventSet) {
        for (word, other) in self.words.iter_mut().zip(&other.words) {
            *word &= !other;
        }
    }

    /// Adds the members of another set of the same graph.
    pub fn unite(&mut self, other: &EventSet) {
        for (word, other) in self.words.iter_mut().zip(&other.words) {
            *word |= other;
        }
    }

    /// How many members it has.
    pub fn len(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.words.iter().enumerate().flat_map(|(at, &word)| {
            std::iter::successors((word != 0).then_some(word), |word| {
                let rest = word & (word - 1);
                (rest != 0).then_some(rest)
            })
            .map(move |word| (at * 64) as u32 + word.trailing_zeros())
        })
    }
}
