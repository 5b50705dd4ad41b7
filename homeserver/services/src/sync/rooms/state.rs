//! What a sync writes of rooms with news: the events of their timelines and the state that goes with them.
//!
//! Everything is looked up for many rooms at once ([`Answer::gather`]): states, their events, what was said about the events
//! shown. Then each room is written without a statement.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use room::{
    event::{RoomIdShown, kind},
    state::StateKeyNumber,
};
use storage::numbers::StateKey;

use super::{super::Events, Answer, Draft, Joined, Timeline};
use crate::{
    Result,
    timeline::{events::Stored, snapshots::Snapshot},
    view::{Options, Reader, Shown, Surroundings},
};

/// How events of a state are shown.
const AS_STATE: Options = Options { room_id: RoomIdShown::No, bundles: false, past: false };

/// What several rooms are written from.
pub(super) struct Gathered {
    /// What is around their events.
    pub around: Surroundings,
    /// What each shows, in the order of the drafts.
    pub of_rooms: Vec<Parts>,
}

/// What one room shows.
pub(super) struct Parts {
    timeline: Vec<Shown>,
    options: Options,
    state: Vec<Shown>,
}

impl Answer<'_> {
    /// Look up what the rooms need to be written.
    pub(super) async fn gather(&self, reader: &Reader, drafts: &[Draft]) -> Result<Gathered> {
        let states = self.states(drafts).await?;
        let of_rooms: Vec<Parts> = drafts
            .iter()
            .zip(states)
            .map(|(draft, state)| {
                let shown =
                    |e: &Arc<crate::timeline::cell::Recent>| Shown { event: Arc::clone(&e.event), txn: e.txn.clone() };
                Parts {
                    timeline: draft.events.iter().map(shown).collect(),
                    options: Options { room_id: RoomIdShown::No, bundles: draft.is_spoken_about, past: true },
                    state,
                }
            })
            .collect();
        let batches: Vec<(&[Shown], Options)> =
            of_rooms.iter().flat_map(|parts| [(&*parts.timeline, parts.options), (&*parts.state, AS_STATE)]).collect();
        let around = self.sync.from.view.around(reader, &batches).await?;
        Ok(Gathered { around, of_rooms })
    }

    /// Write a room.
    pub(super) fn joined(
        &self,
        draft: &Draft,
        reader: &Reader,
        parts: &Parts,
        around: &Surroundings,
    ) -> Result<Joined> {
        let mut joined = Joined::default();
        let now = &draft.now;
        let counts_changed = draft.is_whole() || draft.events.iter().any(|e| e.event.pdu.kind == kind::MEMBER);
        if counts_changed {
            joined.summary.joined = Some(now.inhabitants.joined);
            joined.summary.invited = Some(now.inhabitants.invited);
        }
        joined.timeline = self.timeline(draft, reader, parts, around)?;
        let state = Events { events: self.sync.from.view.render_within(reader, &parts.state, AS_STATE, around)? };
        let places = [&mut joined.state, &mut joined.state_after, &mut joined.unstable_state_after];
        // Older clients read every part of a room unasked, so empty lists are written out.
        *self.state_place(places) = Some(state);
        Ok(joined)
    }

    /// Where in a room the client looks for its state: of `state`, `state_after` and the name that had before it was stable.
    pub(super) fn state_place<'p>(&self, places: [&'p mut Option<Events>; 3]) -> &'p mut Option<Events> {
        let [state, after, unstable_after] = places;
        match (self.request.use_state_after, self.request.is_unstable_state_after) {
            (true, true) => unstable_after,
            (true, false) => after,
            (false, _) => state,
        }
    }

    /// A room the user is not in any more: its timeline and state.
    pub(super) async fn written(&self, draft: Draft) -> Result<(Timeline, Events)> {
        let (reader, drafts) = (self.reader(), [draft]);
        let Gathered { around, of_rooms } = self.gather(&reader, &drafts).await?;
        let [parts] = &of_rooms[..] else { return Ok((Timeline::default(), Events::default())) };
        let timeline = self.timeline(&drafts[0], &reader, parts, &around)?;
        let state = self.sync.from.view.render_within(&reader, &parts.state, AS_STATE, &around)?;
        Ok((timeline, Events { events: state }))
    }

    /// Write a room's timeline.
    fn timeline(&self, draft: &Draft, reader: &Reader, parts: &Parts, around: &Surroundings) -> Result<Timeline> {
        let events = self.sync.from.view.render_within(reader, &parts.timeline, parts.options, around)?;
        let prev_batch = match draft.events.first() {
            Some(first) => {
                let (depth, nid) = first.event.place();
                Some(format!("b{depth}_{nid}_{}", first.pos))
            }
            None => draft.limited.then(|| format!("s{}", self.until)),
        };
        let limited = draft.limited || (draft.is_whole() && self.since > 0);
        Ok(Timeline { events, limited, prev_batch })
    }

    /// For each room the state before (or, with `state_after`, after) the events shown, as far as the client cannot know it.
    async fn states(&self, drafts: &[Draft]) -> Result<Vec<Vec<Shown>>> {
        let filter = &self.request.filter.room;
        let starts = self.starts(drafts).await?;
        let names = self.names(drafts, &starts).await?;
        let members = self.sender_keys(drafts).await?;
        let mut wanted: Vec<Vec<i64>> = Vec::with_capacity(drafts.len());
        for (draft, start) in drafts.iter().zip(&starts) {
            let mut nids = if draft.is_whole() { self.whole_state(start, &names) } else { self.changed_state(draft) };
            if filter.is_lazy() {
                nids.extend(self.senders(draft, start, &members, &nids));
            }
            wanted.push(nids);
        }
        let all: BTreeSet<i64> = wanted.iter().flatten().copied().collect();
        let found = self.sync.from.timeline.events.by_nids(&all.into_iter().collect::<Vec<_>>()).await?;
        let wants = |e: &&Arc<Stored>| filter.state.wants(&e.pdu.kind, e.pdu.sender.as_str(), e.pdu.content.get());
        let shown = |nids: Vec<i64>| {
            let events = nids.into_iter().filter_map(|nid| found.get(&nid)).filter(wants);
            events.map(|event| Shown::from(Arc::clone(event))).collect()
        };
        Ok(wanted.into_iter().map(shown).collect())
    }

    /// The state each room's part begins with.
    async fn starts(&self, drafts: &[Draft]) -> Result<Vec<Arc<Snapshot>>> {
        let before = |draft: &Draft| {
            let first = draft.events.first().filter(|_| !self.request.use_state_after)?;
            first.event.state_nid
        };
        let nids: BTreeSet<i64> = drafts.iter().filter_map(before).collect();
        let nids: Vec<i64> = nids.into_iter().collect();
        let found = self.sync.from.timeline.snapshots.by_nids(&nids).await?;
        let start =
            |draft: &Draft| before(draft).and_then(|nid| found.get(&nid)).unwrap_or(&draft.now.snapshot).clone();
        Ok(drafts.iter().map(start).collect())
    }

    /// Types and keys of the states of rooms that are whole to the client, when members come lazily.
    async fn names(&self, drafts: &[Draft], starts: &[Arc<Snapshot>]) -> Result<HashMap<i64, StateKey>> {
        if !self.request.filter.room.is_lazy() {
            return Ok(HashMap::new());
        }
        let whole = drafts.iter().zip(starts).filter(|(draft, _)| draft.is_whole());
        let keys: BTreeSet<i64> =
            whole.flat_map(|(_, start)| start.state.iter().map(|(key, _)| signed(key.0))).collect();
        Ok(self.sync.cx.numbers.state_key_names(&keys.into_iter().collect::<Vec<_>>()).await?)
    }

    /// All of a state, members apart when they come lazily.
    fn whole_state(&self, start: &Snapshot, names: &HashMap<i64, StateKey>) -> Vec<i64> {
        let is_lazy = self.request.filter.room.is_lazy();
        let own = self.request.user.user_id.as_str();
        let is_wanted = |key: StateKeyNumber| {
            !is_lazy || names.get(&signed(key.0)).is_some_and(|(kind, key)| &**kind != kind::MEMBER || &**key == own)
        };
        start.state.iter().filter(|(key, _)| is_wanted(*key)).map(|(_, event)| signed(event.0)).collect()
    }

    /// What changed in a state since, as far as the events shown do not say it.
    fn changed_state(&self, draft: &Draft) -> Vec<i64> {
        let shown: HashSet<i64> = draft.events.iter().map(|e| e.event.nid).collect();
        let first_pos = draft.events.first().map_or(i64::MAX, |first| first.pos);
        let is_after = self.request.use_state_after;
        let mut newest: BTreeMap<i64, i64> = BTreeMap::new();
        for row in &draft.changes {
            if is_after
                || draft.hides_state
                || row.pos < first_pos
                || Some(row.change.cause_nid) != row.change.event_nid
            {
                match row.change.event_nid {
                    Some(event_nid) => drop(newest.insert(row.change.state_key_nid, event_nid)),
                    None => drop(newest.remove(&row.change.state_key_nid)),
                }
            }
        }
        newest.into_values().filter(|nid| is_after || !shown.contains(nid)).collect()
    }

    /// Numbers of the state keys under which the members stand who sent what is shown.
    async fn sender_keys<'a>(&self, drafts: &'a [Draft]) -> Result<HashMap<&'a str, i64>> {
        if !self.request.filter.room.is_lazy() {
            return Ok(HashMap::new());
        }
        let senders: BTreeSet<&str> =
            drafts.iter().flat_map(|draft| draft.events.iter().map(|e| e.event.pdu.sender.as_str())).collect();
        let names: Vec<(&str, &str)> = senders.into_iter().map(|sender| (kind::MEMBER, sender)).collect();
        let keys = self.sync.cx.numbers.state_keys_if_known(&names).await?;
        Ok(keys.into_iter().map(|((_, sender), nid)| (sender, nid)).collect())
    }

    /// The members who sent what is shown, as far as this device does not know them and `known` does not hold them.
    fn senders(&self, draft: &Draft, start: &Snapshot, keys: &HashMap<&str, i64>, known: &[i64]) -> Vec<i64> {
        let senders: BTreeSet<&str> = draft.events.iter().map(|e| e.event.pdu.sender.as_str()).collect();
        let known: HashSet<i64> = known.iter().copied().collect();
        let member = |sender: &&str| {
            let key = StateKeyNumber(u64::try_from(*keys.get(*sender)?).ok()?);
            start.state.get(key).map(|event| signed(event.0))
        };
        let unknown = senders.iter().filter(|sender| member(sender).is_none_or(|nid| !known.contains(&nid)));
        let unknown: Vec<String> = unknown.map(|sender| (*sender).to_owned()).collect();
        let repeats = self.request.filter.room.state.include_redundant_members || draft.is_whole();
        let told = self.entry.unknown_members(self.device, draft.now.nid, unknown.clone());
        let told = if repeats { unknown } else { told };
        told.iter().filter_map(|sender| member(&sender.as_str())).collect()
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
