//! Events from elsewhere, after their checks: outliers, history, new events, and the rooms our users join there.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use room::{
    event::{Pdu, kind},
    graph::{AuthGraph, heads},
    redact,
    resolve::{self, Start, Step},
    state::{EventNumber, Layer, State, StateKeyNumber},
    versions::Rules,
};
use ruma::{OwnedEventId, RoomVersionId};
use storage::{
    events::flags,
    numbers::Family,
    relations::{self, REDACTION},
    states,
};
use tokio::sync::oneshot;

use super::{
    Timeline,
    cell::{Cell, Generation, Working},
    effects::{number, redacted},
    events::Stored,
    new_event,
    now::{Extremity, RoomNow},
    persist::{Base, Effects, Item, Outcome, Write},
    snapshots::Snapshot,
    unsigned,
};
use crate::{Error, Result};

/// Rooms whose auth graph is kept in memory.
const GRAPHS_MAX: usize = 64;
/// Events added to such a graph one by one; if it lacks more, it is read anew.
const UNLISTED_MAX: usize = 200;
/// Resolutions remembered.
const RESOLUTIONS_MAX: usize = 10_000;
/// Outliers stored in one transaction.
const OUTLIERS_PER_TRANSACTION_MAX: usize = 500;

/// What becomes of an event that arrived and was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// It joins the room's present: clients see it.
    Live,
    /// It belongs to the past: clients page to it.
    Past,
    /// Allowed where it stands, refused by the current state: kept, not shown, built upon by nobody.
    SoftFailed,
    /// Refused.
    Rejected,
}

/// An event that arrived and was checked.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// The event.
    pub pdu: Arc<Pdu>,
    /// What becomes of it.
    pub placement: Placement,
    /// State before it.
    pub state_before: Arc<Snapshot>,
    /// Whether we pass it on to the other servers in the room: its sender joined, left or knocked through us.
    pub relay: bool,
}

/// What is remembered about forks.
#[derive(Debug, Default)]
pub(super) struct Forks {
    graphs: Mutex<BTreeMap<i64, Arc<Mutex<AuthGraph>>>>,
    resolved: Mutex<HashMap<Vec<i64>, i64>>,
}

/// An event of an auth graph: its number, that of its state key, those of the events that vouch for it.
type GraphRow = (i64, Option<i64>, Vec<i64>);

/// Put events into a graph, each after those that vouch for it; an event some of whose are missing is left out.
fn extend(graph: &mut AuthGraph, mut left: Vec<GraphRow>, power_levels: Option<i64>) {
    loop {
        let before = left.len();
        left.retain(|(nid, key, auth)| {
            let event = EventNumber(unsigned(*nid));
            if graph.contains(event) {
                return false;
            }
            let auth: Vec<EventNumber> = auth.iter().map(|nid| EventNumber(unsigned(*nid))).collect();
            graph.insert(event, &auth, key.is_some() && *key == power_levels).is_err()
        });
        if left.is_empty() || left.len() == before {
            return;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Timeline {
    /// Put an event that arrived into its room. Returns its position, or `None` when it is not in the stream (refused, history, or
    /// stored before). Events it follows must be here already, unless history ends with it.
    ///
    /// # Errors
    /// The database's; [`Error::Stopping`].
    pub async fn accept(&self, room_nid: i64, arrival: &Arrival) -> Result<Option<i64>> {
        for _ in 0..super::ATTEMPTS_MAX {
            let Some(told) = self.build_arrival(room_nid, arrival).await? else { return Ok(None) };
            match told.await.map_err(|_| Error::Stopping)?? {
                Outcome::Stored(pos) => return Ok(Some(pos).filter(|pos| *pos > 0)),
                Outcome::Duplicate => return Ok(None),
                Outcome::Lost => {}
            }
        }
        Err(Error::Limited { retry_after: std::time::Duration::from_secs(1) })
    }

    async fn build_arrival(
        &self,
        room_nid: i64,
        arrival: &Arrival,
    ) -> Result<Option<oneshot::Receiver<Result<Outcome>>>> {
        let known = self.events.by_id(&arrival.pdu.event_id).await?;
        if known.as_ref().is_some_and(|event| !event.has(flags::OUTLIER)) {
            return Ok(None);
        }
        let prev = self.events.by_ids(&arrival.pdu.prev_events).await?;
        let cell = self.cells.get(room_nid);
        let mut lease = cell.lease.lock().await;
        let mut working = match lease.take().filter(|w| self.still_holds(&cell, w)) {
            Some(working) => working,
            None => Working {
                now: self.now(room_nid).await?,
                generation: Arc::new(Generation::default()),
                threads: HashMap::new(),
            },
        };
        let (item, told) = self.arrival_item(&cell, &mut working, arrival, known, &prev).await?;
        self.writer.push(item).await?;
        *lease = Some(working);
        Ok(Some(told))
    }

    async fn arrival_item(
        &self,
        cell: &Arc<Cell>,
        working: &mut Working,
        arrival: &Arrival,
        known: Option<Arc<Stored>>,
        prev: &HashMap<OwnedEventId, Arc<Stored>>,
    ) -> Result<(Item, oneshot::Receiver<Result<Outcome>>)> {
        let before = Arc::clone(&working.now);
        let nid = match &known {
            Some(event) => event.nid,
            None => self.cx.numbers.next(Family::Event).await?,
        };
        let sender_nid = self.cx.numbers.user(&arrival.pdu.sender).await?;
        let state_key_nid = match &arrival.pdu.state_key {
            Some(key) => Some(self.cx.numbers.state_key(&arrival.pdu.kind, key).await?),
            None => None,
        };
        let mut effects = Effects::default();
        let is_refused = arrival.placement == Placement::Rejected;
        let own_change = state_key_nid
            .filter(|_| !is_refused)
            .map(|key| Layer::one(StateKeyNumber(unsigned(key)), EventNumber(unsigned(nid))));
        let state_after = match &own_change {
            Some(change) => {
                let (snapshot, row) = self.snapshots.next(before.nid, &arrival.state_before, change).await?;
                effects.states.extend(row);
                snapshot
            }
            None => Arc::clone(&arrival.state_before),
        };
        let stored = Stored {
            nid,
            room_nid: before.nid,
            flags: match arrival.placement {
                Placement::Live | Placement::Past => 0,
                Placement::SoftFailed => flags::SOFT_FAILED,
                Placement::Rejected => flags::REJECTED,
            },
            state_nid: Some(arrival.state_before.nid),
            state_after_nid: own_change.is_some().then_some(state_after.nid),
            pdu: Arc::clone(&arrival.pdu),
        };
        let event = Arc::new(self.redacted_on_arrival(&before, stored).await?);
        if known.is_none() {
            self.events.built(Arc::clone(&event));
        }
        let missing = event.pdu.prev_events.iter().filter(|id| prev.get(*id).is_none_or(|e| e.has(flags::OUTLIER)));
        effects.missing = missing.map(ToString::to_string).collect();
        let auth = self.auth_nids(&event.pdu).await?;
        let (mut base, mut row, mut after) = (Base::Aside, None, Arc::clone(&before));
        if arrival.placement == Placement::Live {
            let mut now = RoomNow::clone(&before);
            now.heads = self.heads_after(&before, &event, prev);
            let present = self.present(&now, &event, &state_after).await?;
            let change = before.snapshot.state.diff(&present.state);
            self.change_state(&mut now, nid, &change, Some(&event), &mut effects).await?;
            now.snapshot = present;
            now.depth = now.depth.max(event.place().0);
            now.head_ver += 1;
            let mut new_row = self.stream_row(working, &mut now, &event, sender_nid, None, &mut effects).await?;
            new_row.flags |= if arrival.relay { storage::timeline::flags::LOCAL } else { 0 };
            new_row.flags |= if effects.missing.is_empty() { 0 } else { storage::timeline::flags::AFTER_GAP };
            row = Some(new_row);
            base = Base::Follow(before.head_ver);
            after = Arc::new(now);
            working.now = Arc::clone(&after);
        } else if arrival.placement == Placement::Past {
            self.relate(working, &event, sender_nid, false, &mut effects).await?;
        }
        let write = match known {
            Some(_) => Write::Place,
            None => Write::New(new_event(&event, sender_nid, state_key_nid, auth)),
        };
        let (reply, told) = oneshot::channel();
        let cell = Arc::clone(cell);
        let generation = Arc::clone(&working.generation);
        Ok((Item { cell, generation, base, after, event, write, row, effects, reply }, told))
    }

    fn heads_after(
        &self,
        before: &RoomNow,
        event: &Arc<Stored>,
        prev: &HashMap<OwnedEventId, Arc<Stored>>,
    ) -> Vec<heads::Head<Extremity>> {
        let extremity = |event: &Stored| Extremity { nid: event.nid, event_id: event.pdu.event_id.clone() };
        let followed: Vec<Extremity> = prev.values().map(|event| extremity(event)).collect();
        let own = self.cx.is_local(&event.pdu.sender);
        let head = heads::Head { event: extremity(event), depth: event.pdu.depth, own };
        heads::after(&before.heads, head, &followed, false)
    }

    /// Current state with `event` among the heads: its own state after, or what all heads' states resolve to.
    async fn present(&self, now: &RoomNow, event: &Stored, state_after: &Arc<Snapshot>) -> Result<Arc<Snapshot>> {
        let others: Vec<i64> = now.heads.iter().map(|h| h.event.nid).filter(|nid| *nid != event.nid).collect();
        let others = self.events.by_nids(&others).await?;
        let mut states: Vec<i64> = others.values().filter_map(|other| other.state_after()).collect();
        if now.heads.iter().any(|h| h.event.nid == event.nid) {
            states.push(state_after.nid);
        }
        self.resolve(now.nid, now.rules, &states).await
    }

    /// An event whose redaction came before it.
    async fn redacted_on_arrival(&self, now: &RoomNow, event: Stored) -> Result<Stored> {
        let said = relations::of(&mut self.cx.store.read().await?, &[event.pdu.event_id.as_str()]).await?;
        let redactions: Vec<i64> = said.iter().filter(|r| r.rel_type == REDACTION).map(|r| r.child_nid).collect();
        if redactions.is_empty() {
            return Ok(event);
        }
        let powers = self.powers(now).await?;
        let redactions = self.events.by_nids(&redactions).await?;
        if redactions.values().any(|r| r.is_visible() && redact::takes_effect(&r.pdu, &event.pdu, &powers)) {
            return redacted(&event, now);
        }
        Ok(event)
    }

    /// The numbers of an event's auth events that we have.
    async fn auth_nids(&self, pdu: &Pdu) -> Result<Vec<i64>> {
        let events = self.events.by_ids(&pdu.auth_events).await?;
        Ok(pdu.auth_events.iter().filter_map(|id| events.get(id)).map(|event| event.nid).collect())
    }

    /// Keep events for their place in auth chains and states alone; `true` says refused. What vouches for an event comes before it.
    /// Those we have are left as they are.
    ///
    /// # Errors
    /// The database's.
    pub async fn keep_outliers(&self, room_nid: i64, events: &[(Arc<Pdu>, bool)]) -> Result<()> {
        let ids: Vec<OwnedEventId> = events.iter().map(|(pdu, _)| pdu.event_id.clone()).collect();
        let known = self.events.by_ids(&ids).await?;
        let mut rows = Vec::new();
        let mut fresh: HashMap<OwnedEventId, i64> = HashMap::new();
        for (pdu, is_rejected) in events.iter().filter(|(pdu, _)| !known.contains_key(&pdu.event_id)) {
            if fresh.contains_key(&pdu.event_id) {
                continue;
            }
            let nid = self.cx.numbers.next(Family::Event).await?;
            let sender_nid = self.cx.numbers.user(&pdu.sender).await?;
            let state_key_nid = match &pdu.state_key {
                Some(key) => Some(self.cx.numbers.state_key(&pdu.kind, key).await?),
                None => None,
            };
            let mut auth = Vec::with_capacity(pdu.auth_events.len());
            for id in &pdu.auth_events {
                match fresh.get(id).copied().or_else(|| known.get(id).map(|event| event.nid)) {
                    Some(nid) => auth.push(nid),
                    None => auth.extend(self.events.by_id(id).await?.map(|event| event.nid)),
                }
            }
            fresh.insert(pdu.event_id.clone(), nid);
            let stored = Arc::new(Stored {
                nid,
                room_nid,
                flags: flags::OUTLIER | if *is_rejected { flags::REJECTED } else { 0 },
                state_nid: None,
                state_after_nid: None,
                pdu: Arc::new(Pdu::clone(pdu).with_rejected(*is_rejected)),
            });
            rows.push((new_event(&stored, sender_nid, state_key_nid, auth), stored));
        }
        for chunk in rows.chunks(OUTLIERS_PER_TRANSACTION_MAX) {
            let mut tx = self.cx.store.begin().await?;
            for (row, _) in chunk {
                storage::events::insert(&mut tx, row).await?;
            }
            tx.commit().await?;
        }
        // Another task may have stored the same event under its own number: only what is in the table counts.
        let stored: Vec<&str> = rows.iter().map(|(row, _)| row.event_id.as_str()).collect();
        let rows = storage::events::by_ids(&mut self.cx.store.read().await?, &stored).await?;
        self.events.read(rows).await?;
        Ok(())
    }

    /// State before an event that follows these: what the states after them resolve to. `None` when one of them, or its state, is
    /// not known here.
    ///
    /// # Errors
    /// The database's.
    pub async fn state_before(
        &self,
        room_nid: i64,
        rules: &'static Rules,
        prev_events: &[OwnedEventId],
    ) -> Result<Option<Arc<Snapshot>>> {
        let prev = self.events.by_ids(prev_events).await?;
        let mut states = Vec::with_capacity(prev_events.len());
        for id in prev_events {
            let Some(state) = prev.get(id).and_then(|event| event.state_after()) else { return Ok(None) };
            states.push(state);
        }
        if states.is_empty() {
            return Ok(None);
        }
        self.resolve(room_nid, rules, &states).await.map(Some)
    }

    /// The state of these events, stored as a snapshot. Events must be here already.
    ///
    /// # Errors
    /// The database's.
    pub async fn snapshot_of(&self, room_nid: i64, event_ids: &[OwnedEventId]) -> Result<Arc<Snapshot>> {
        let events = self.events.by_ids(event_ids).await?;
        let mut entries = Vec::with_capacity(events.len());
        for event in events.values() {
            let Some(key) = &event.pdu.state_key else { continue };
            let key = self.cx.numbers.state_key(&event.pdu.kind, key).await?;
            entries.push((StateKeyNumber(unsigned(key)), EventNumber(unsigned(event.nid))));
        }
        self.store_state(room_nid, &Snapshot::empty(), entries.into_iter().collect()).await
    }

    /// The state that follows another by one state event, stored as a snapshot.
    ///
    /// # Errors
    /// The database's.
    pub async fn snapshot_with(&self, room_nid: i64, before: &Arc<Snapshot>, event: &Stored) -> Result<Arc<Snapshot>> {
        let Some(key) = &event.pdu.state_key else { return Ok(Arc::clone(before)) };
        let key = self.cx.numbers.state_key(&event.pdu.kind, key).await?;
        let change = Layer::one(StateKeyNumber(unsigned(key)), EventNumber(unsigned(event.nid)));
        self.store_state(room_nid, before, before.state.apply(&change)).await
    }

    /// Store a state as the successor of another.
    async fn store_state(&self, room_nid: i64, before: &Arc<Snapshot>, state: State) -> Result<Arc<Snapshot>> {
        let change = before.state.diff(&state);
        let (snapshot, row) = self.snapshots.next(room_nid, before, &change).await?;
        if let Some(row) = row {
            let mut tx = self.cx.store.begin().await?;
            states::put(&mut tx, &row).await?;
            tx.commit().await?;
        }
        Ok(snapshot)
    }

    /// What states resolve to, stored and remembered.
    ///
    /// # Errors
    /// The database's; [`Error::Internal`] when an event the resolution needs is missing.
    pub async fn resolve(&self, room_nid: i64, rules: &'static Rules, states: &[i64]) -> Result<Arc<Snapshot>> {
        let mut nids = states.to_vec();
        nids.sort_unstable();
        nids.dedup();
        match nids.as_slice() {
            [] => return Ok(Snapshot::empty()),
            [one] => return self.snapshots.by_nid(*one).await,
            _ => {}
        }
        let remembered = lock(&self.forks.resolved).get(&nids).copied();
        if let Some(nid) = remembered {
            return self.snapshots.by_nid(nid).await;
        }
        let snapshots = self.snapshots.by_nids(&nids).await?;
        let maps: Vec<State> = nids.iter().filter_map(|nid| snapshots.get(nid)).map(|s| s.state.clone()).collect();
        let state = match self.start_resolution(room_nid, rules, &maps).await? {
            Start::Agreed(state) => state,
            Start::Forked(resolution) => self.finish_resolution(resolution).await?,
        };
        // The nearest of the forks is the cheapest to stand on.
        let before = snapshots.values().min_by_key(|s| s.state.diff(&state).len()).cloned();
        let before = before.unwrap_or_else(Snapshot::empty);
        let resolved = self.store_state(room_nid, &before, state).await?;
        let mut memory = lock(&self.forks.resolved);
        if memory.len() >= RESOLUTIONS_MAX {
            memory.clear();
        }
        memory.insert(nids, resolved.nid);
        Ok(resolved)
    }

    async fn start_resolution(&self, room_nid: i64, rules: &'static Rules, maps: &[State]) -> Result<Start> {
        let graph = {
            let mut graphs = lock(&self.forks.graphs);
            if graphs.len() >= GRAPHS_MAX && !graphs.contains_key(&room_nid) {
                graphs.pop_first();
            }
            Arc::clone(graphs.entry(room_nid).or_default())
        };
        let power_levels = self.cx.numbers.state_key_if_known(kind::POWER_LEVELS, "").await?;
        // Mostly it lacks what has just come, some of which may be on its way to the database.
        let fresh = self.unlisted(&graph, maps).await?;
        {
            let mut graph = lock(&graph);
            extend(&mut graph, fresh.clone(), power_levels);
            if let Ok(start) = resolve::start(rules, maps, &graph) {
                return Ok(start);
            }
        }
        let mut rows = storage::events::auth_graph(&mut self.cx.store.read().await?, room_nid).await?;
        rows.extend(fresh);
        let mut graph = lock(&graph);
        extend(&mut graph, rows, power_levels);
        resolve::start(rules, maps, &graph).map_err(|_| Error::internal("the auth graph of a room has holes"))
    }

    /// Events of states that a graph does not hold yet, with those that vouch for them, as far as they are few.
    async fn unlisted(&self, graph: &Mutex<AuthGraph>, maps: &[State]) -> Result<Vec<GraphRow>> {
        let (mut rows, mut seen) = (Vec::new(), HashSet::new());
        let mut wanted = lock(graph).missing(maps.iter().flat_map(State::iter).map(|(_, event)| event));
        while !wanted.is_empty() && seen.len() < UNLISTED_MAX {
            let nids: Vec<i64> =
                wanted.iter().map(|event| number(event.0)).filter(|nid| seen.insert(*nid)).take(UNLISTED_MAX).collect();
            let events = self.events.by_nids(&nids).await?;
            let mut auth_of_all = Vec::new();
            for event in events.values() {
                let key = match &event.pdu.state_key {
                    Some(key) => Some(self.cx.numbers.state_key(&event.pdu.kind, key).await?),
                    None => None,
                };
                let auth = self.auth_nids(&event.pdu).await?;
                auth_of_all.extend(auth.iter().map(|nid| EventNumber(unsigned(*nid))));
                rows.push((event.nid, key, auth));
            }
            wanted = lock(graph).missing(auth_of_all);
            wanted.retain(|event| !seen.contains(&number(event.0)));
        }
        Ok(rows)
    }

    async fn finish_resolution(&self, mut resolution: Box<resolve::Resolution>) -> Result<State> {
        loop {
            // The last step computes for milliseconds.
            let (back, step) = tokio::task::spawn_blocking(move || {
                let step = resolution.step();
                (resolution, step)
            })
            .await
            .map_err(Error::internal)?;
            resolution = back;
            match step.map_err(Error::internal)? {
                Step::Events(wanted) => {
                    let nids: Vec<i64> = wanted.iter().map(|event| number(event.0)).collect();
                    let events = self.events.by_nids(&nids).await?;
                    let events = events.into_values().map(|e| (EventNumber(unsigned(e.nid)), Arc::clone(&e.pdu)));
                    resolution.supply_events(events).map_err(Error::internal)?;
                }
                Step::Keys(keys) => {
                    let mut numbers = Vec::with_capacity(keys.len());
                    for (event_kind, key) in keys {
                        if let Some(nid) = self.cx.numbers.state_key_if_known(&event_kind, &key).await? {
                            numbers.push(((event_kind, key), StateKeyNumber(unsigned(nid))));
                        }
                    }
                    resolution.supply_keys(numbers);
                }
                Step::Done(state) => return Ok(state),
            }
        }
    }

    /// Begin to follow a room of another server with our user's join, after `send_join`. `state` is the state before the join; its
    /// events and what vouches for them are kept already ([`Timeline::keep_outliers`]) under `room_nid`, which came from
    /// [`Timeline::reserve_room`].
    ///
    /// # Errors
    /// The database's; [`Error::Stopping`].
    pub async fn begin_remote(
        &self,
        room_nid: i64,
        version: &RoomVersionId,
        rules: &'static Rules,
        join: Arc<Pdu>,
        state: &[OwnedEventId],
    ) -> Result<Arc<RoomNow>> {
        let state_before = self.snapshot_of(room_nid, state).await?;
        let arrival = Arrival { pdu: Arc::clone(&join), placement: Placement::Live, state_before, relay: false };
        let is_known = !storage::rooms::by_nids(&mut self.cx.store.read().await?, &[room_nid]).await?.is_empty();
        if is_known {
            self.accept(room_nid, &arrival).await?;
            return self.now(room_nid).await;
        }
        let cell = self.cells.get(room_nid);
        let blank = RoomNow::before_creation(room_nid, join.room_id.clone(), version.clone(), rules);
        let mut working =
            Working { now: Arc::new(blank), generation: Arc::new(Generation::default()), threads: HashMap::new() };
        let known = self.events.by_id(&join.event_id).await?;
        let prev = HashMap::new();
        let (mut item, told) = self.arrival_item(&cell, &mut working, &arrival, known, &prev).await?;
        item.base = Base::Begin;
        self.writer.push(item).await?;
        match told.await.map_err(|_| Error::Stopping)?? {
            Outcome::Stored(_) => self.cells.learn(join.room_id.clone(), room_nid),
            // Somebody else of ours joined at the same moment: the room is there, the event follows it.
            Outcome::Lost | Outcome::Duplicate => {
                let room_nid = self.room_nid(&join.room_id).await?;
                self.accept(room_nid, &arrival).await?;
            }
        }
        self.room(&join.room_id).await
    }

    /// The number of a room that may be new here.
    ///
    /// # Errors
    /// The database's.
    pub async fn reserve_room(&self, room_id: &ruma::RoomId, rules: &'static Rules) -> Result<i64> {
        let nid = match self.room_nid(room_id).await {
            Ok(nid) => nid,
            Err(Error::NotFound(_)) => self.cx.numbers.next(Family::Room).await?,
            Err(error) => return Err(error),
        };
        self.events.learn_room(nid, (room_id.to_owned(), rules));
        Ok(nid)
    }
}
