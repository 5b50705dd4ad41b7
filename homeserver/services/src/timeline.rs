//! The one door by which an event enters a room.
//!
//! Local sends ([`Timeline::append`]) and remote events ([`Timeline::accept`]) both end here, so the order of a room is decided in one
//! place. An event is built (or was received) against the room's head, and stored if the head has not moved meanwhile:
//! compare-and-set on `rooms.head_ver` inside a group commit ([`persist`]). Within a process the writers of a room queue at its
//! lease, so that they build on each other instead of losing to each other; the lease is never held while storing.
//!
//! Everything an accepted event causes elsewhere (delivery to other servers, pushes, application services) is read by workers from
//! the stream itself, by a cursor each; they are woken by [`crate::notify`]. This module therefore calls nothing above it.
//!
//! Not here: deciding whether an event is allowed (crate `room`), what people may ask for (`rooms/*`), how events arrive
//! (`incoming`).

pub mod cell;
pub mod effects;
pub mod events;
pub mod notifying;
pub mod now;
pub mod persist;
mod remote;
pub mod snapshots;

use std::{collections::HashMap, sync::Arc};

use room::{
    auth,
    build::{self, Draft, Place},
    event::{Pdu, kind},
    graph::heads::Head,
    state::{EventNumber, Layer, StateKeyNumber},
    versions,
};
use ruma::{OwnedEventId, OwnedRoomId, RoomId, RoomVersionId};
use storage::{
    events::NewEvent,
    members::Inhabitant,
    numbers::Family,
    rooms::Facts,
    timeline::{NewRow, ReadMark, flags as row_flags},
};
use tokio::sync::oneshot;

pub use self::remote::{Arrival, Placement};
use self::{
    cell::{Cell, Cells, Generation, Recent, Working},
    events::{Events, Stored},
    now::{Extremity, Inhabitants, RoomNow},
    persist::{Base, Effects, Item, Outcome, Write, Writer},
    snapshots::{Snapshot, Snapshots},
};
use crate::{Context, Error, Result, push_rules::Rules};

/// How often an event is built anew when other instances move its room first.
const ATTEMPTS_MAX: usize = 20;
/// Rooms whose powers are remembered.
const POWERS_MAX: usize = 5_000;

/// Events of rooms, and the only way to add one. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Timeline {
    cx: Context,
    /// Events in memory.
    pub events: Events,
    /// States in memory.
    pub snapshots: Snapshots,
    cells: Cells,
    writer: Writer,
    forks: Arc<remote::Forks>,
    rules: Rules,
    called: notifying::CalledCache,
    /// Powers by the numbers of the create event and the power levels that say them.
    powers: Arc<quick_cache::sync::Cache<(i64, i64), Arc<room::auth::Powers>>>,
}

/// An event that was stored.
#[derive(Debug, Clone)]
pub struct Sent {
    /// Its id.
    pub event_id: OwnedEventId,
    /// The event; `None` when it was stored before, under the same transaction id.
    pub event: Option<Arc<Stored>>,
    /// Its position; 0 when it was stored before.
    pub pos: i64,
}

/// What a device wants to send.
#[derive(Debug, Clone)]
pub struct Wish {
    /// The event.
    pub draft: Draft,
    /// What makes a repetition recognisable: device and transaction id.
    pub txn: Option<String>,
    /// `origin_server_ts` an application service asks for, milliseconds.
    pub ts: Option<u64>,
}

impl From<Draft> for Wish {
    fn from(draft: Draft) -> Self {
        Self { draft, txn: None, ts: None }
    }
}

/// An event built and not yet stored.
type Waiting = (Arc<Stored>, oneshot::Receiver<Result<Outcome>>);

impl Timeline {
    /// Start the writer.
    #[must_use]
    pub fn start(cx: Context, rules: Rules) -> Self {
        let events = Events::new(cx.clone());
        let snapshots = Snapshots::new(cx.clone());
        let writer = Writer::start(cx.clone(), events.clone());
        let cells = Cells::default();
        let watched = cells.clone();
        cx.notify.on_change(move |change| watched.hear(change));
        let (called, powers) = (notifying::called_cache(), Arc::new(quick_cache::sync::Cache::new(POWERS_MAX)));
        Self { cx, events, snapshots, cells, writer, forks: Arc::default(), rules, called, powers }
    }

    /// The number of a room we know.
    ///
    /// # Errors
    /// [`Error::NotFound`]; the database's.
    pub async fn room_nid(&self, room_id: &RoomId) -> Result<i64> {
        if let Some(nid) = self.cells.nid(room_id) {
            return Ok(nid);
        }
        let head = storage::rooms::by_id(&mut self.cx.store.read().await?, room_id.as_str()).await?;
        let head = head.ok_or(Error::NotFound("room"))?;
        self.events.learn_room(head.nid, events::nature(&head)?);
        self.cells.learn(room_id.to_owned(), head.nid);
        Ok(head.nid)
    }

    /// A room as it is stored now, by id.
    ///
    /// # Errors
    /// [`Error::NotFound`]; the database's.
    pub async fn room(&self, room_id: &RoomId) -> Result<Arc<RoomNow>> {
        let nid = self.room_nid(room_id).await?;
        self.now(nid).await
    }

    /// A room as it is stored now.
    ///
    /// # Errors
    /// [`Error::NotFound`]; the database's.
    pub async fn now(&self, nid: i64) -> Result<Arc<RoomNow>> {
        let cell = self.cells.get(nid);
        if let Some(now) = cell.stored() {
            return Ok(now);
        }
        let now = self.load(nid).await?;
        cell.loaded(Arc::clone(&now));
        Ok(cell.stored().unwrap_or(now))
    }

    /// Several rooms as they are stored now, in no order; rooms that are not there are left out.
    ///
    /// # Errors
    /// The database's.
    pub async fn now_many(&self, nids: &[i64]) -> Result<Vec<Arc<RoomNow>>> {
        let mut found = Vec::with_capacity(nids.len());
        let mut left = Vec::new();
        // The cells are there before the rooms are read, so that news which come meanwhile find them.
        let cells: Vec<Arc<Cell>> = nids.iter().map(|nid| self.cells.get(*nid)).collect();
        for cell in &cells {
            match cell.stored() {
                Some(now) => found.push(now),
                None => left.push(cell.nid),
            }
        }
        for now in self.load_many(&left).await? {
            let cell = self.cells.get(now.nid);
            cell.loaded(Arc::clone(&now));
            found.push(cell.stored().unwrap_or(now));
        }
        Ok(found)
    }

    /// The room if it is in memory: for readers that must not wait.
    #[must_use]
    pub fn now_remembered(&self, nid: i64) -> Option<Arc<RoomNow>> {
        self.cells.peek(nid)?.stored()
    }

    /// Who is in a room, if that is in memory: also when other instances have written messages since.
    #[must_use]
    pub fn inhabitants_remembered(&self, nid: i64) -> Option<Arc<Inhabitants>> {
        self.cells.peek(nid)?.inhabitants()
    }

    /// All events of a room after a position, if memory reaches back so far.
    #[must_use]
    pub fn recent_since(&self, nid: i64, since: i64) -> Option<Vec<Arc<Recent>>> {
        self.cells.peek(nid)?.recent_since(since)
    }

    async fn load(&self, nid: i64) -> Result<Arc<RoomNow>> {
        self.load_many(&[nid]).await?.pop().ok_or(Error::NotFound("room"))
    }

    /// Read rooms from the database: four statements, however many they are.
    async fn load_many(&self, nids: &[i64]) -> Result<Vec<Arc<RoomNow>>> {
        if nids.is_empty() {
            return Ok(Vec::new());
        }
        let mut tx = self.cx.store.read().await?;
        // Heads and positions first: an event stored in between then makes the rest newer than they say, never older.
        let placed = storage::rooms::placed(&mut tx, nids).await?;
        let mut inhabitants: HashMap<i64, Vec<Inhabitant>> = HashMap::new();
        for row in storage::members::inhabitants(&mut tx, nids).await? {
            inhabitants.entry(row.room_nid).or_default().push(row);
        }
        let facts = storage::rooms::facts(&mut tx, nids).await?;
        drop(tx);
        let mut facts: HashMap<i64, Facts> = facts.into_iter().map(|facts| (facts.room_nid, facts)).collect();
        let states: Vec<i64> = placed.iter().map(|room| room.head.state_nid).collect();
        let snapshots = self.snapshots.by_nids(&states).await?;
        let mut rooms = Vec::with_capacity(placed.len());
        for storage::rooms::Placed { head, last_pos } in placed {
            let nid = head.nid;
            let (room_id, rules) = events::nature(&head)?;
            self.events.learn_room(nid, (room_id.clone(), rules));
            self.cells.learn(room_id.clone(), nid);
            rooms.push(Arc::new(RoomNow {
                nid,
                room_id,
                version: RoomVersionId::try_from(head.version.as_str()).map_err(Error::internal)?,
                rules,
                head_ver: head.head_ver,
                heads: extremities(&head)?,
                snapshot: snapshots.get(&head.state_nid).cloned().ok_or_else(|| Error::internal("state is missing"))?,
                depth: head.depth,
                notify_seq: head.notify_seq,
                is_partial: head.is_partial,
                inhabitants: Arc::new(Inhabitants::of(&inhabitants.remove(&nid).unwrap_or_default())),
                facts: Arc::new(facts.remove(&nid).unwrap_or(Facts { room_nid: nid, ..Facts::default() })),
                last_pos,
            }));
        }
        Ok(rooms)
    }

    /// The event at a type and state key in a room's current state.
    ///
    /// # Errors
    /// The database's.
    pub async fn state_event(&self, now: &RoomNow, event_kind: &str, state_key: &str) -> Result<Option<Arc<Stored>>> {
        self.state_event_in(&now.snapshot, event_kind, state_key).await
    }

    /// The event at a type and state key in a state.
    ///
    /// # Errors
    /// The database's.
    pub async fn state_event_in(
        &self,
        snapshot: &Snapshot,
        event_kind: &str,
        state_key: &str,
    ) -> Result<Option<Arc<Stored>>> {
        let Some(key) = self.cx.numbers.state_key_if_known(event_kind, state_key).await? else { return Ok(None) };
        let key = StateKeyNumber(u64::try_from(key).unwrap_or_default());
        let Some(event) = snapshot.state.get(key) else { return Ok(None) };
        Ok(Some(self.events.by_nid(effects::number(event.0)).await?))
    }

    /// All events of a state, in the order of their state keys' numbers.
    ///
    /// # Errors
    /// The database's.
    pub async fn state_events(&self, snapshot: &Snapshot) -> Result<Vec<Arc<Stored>>> {
        let nids: Vec<i64> = snapshot.state.iter().map(|(_, event)| effects::number(event.0)).collect();
        let mut events = self.events.by_nids(&nids).await?;
        Ok(nids.iter().filter_map(|nid| events.remove(nid)).collect())
    }

    /// Send one event of ours into a room. See [`Timeline::append_all`].
    ///
    /// # Errors
    /// As there.
    pub async fn append(&self, room_nid: i64, wish: impl Into<Wish>) -> Result<Sent> {
        let mut sent = self.append_all(room_nid, vec![wish.into()]).await?;
        sent.pop().ok_or_else(|| Error::internal("an event was sent and is not there"))
    }

    /// Send events of ours into a room, one upon the other, stored together or not at all unless the server stops in between.
    ///
    /// # Errors
    /// [`Error::Refused`] with the rule that refused (nothing was stored then); [`Error::TooLarge`]; [`Error::NotFound`] for a room
    /// we do not know; [`Error::Stopping`].
    pub async fn append_all(&self, room_nid: i64, wishes: Vec<Wish>) -> Result<Vec<Sent>> {
        for _ in 0..ATTEMPTS_MAX {
            let waiting = self.build_all(room_nid, &wishes).await?;
            let mut sent = Vec::with_capacity(waiting.len());
            for ((event, reply), wish) in waiting.into_iter().zip(&wishes) {
                match reply.await.map_err(|_| Error::Stopping)?? {
                    Outcome::Stored(pos) => {
                        sent.push(Sent { event_id: event.pdu.event_id.clone(), event: Some(event), pos });
                    }
                    Outcome::Duplicate => sent.extend(self.sent_before(wish).await?),
                    Outcome::Lost => break,
                }
            }
            if sent.len() == wishes.len() {
                return Ok(sent);
            }
        }
        Err(Error::Limited { retry_after: std::time::Duration::from_secs(1) })
    }

    /// The event a device sent with this transaction id before.
    ///
    /// # Errors
    /// The database's.
    pub async fn sent_before(&self, wish: &Wish) -> Result<Option<Sent>> {
        let Some(txn) = &wish.txn else { return Ok(None) };
        let found = storage::timeline::by_txn(&mut self.cx.store.read().await?, txn).await?;
        let Some(id) = found else { return Ok(None) };
        let event_id = OwnedEventId::try_from(id).map_err(Error::internal)?;
        Ok(Some(Sent { event_id, event: None, pos: 0 }))
    }

    /// Build events one upon the other and put them into the writer's queue.
    async fn build_all(&self, room_nid: i64, wishes: &[Wish]) -> Result<Vec<Waiting>> {
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
        let mut items = Vec::with_capacity(wishes.len());
        let mut waiting = Vec::with_capacity(wishes.len());
        let before = working.clone();
        for wish in wishes {
            match self.build_next(&cell, &mut working, wish).await {
                Ok((item, reply)) => {
                    waiting.push((Arc::clone(&item.event), reply));
                    items.push(item);
                }
                Err(error) => {
                    *lease = Some(before);
                    return Err(error);
                }
            }
        }
        for item in items {
            self.writer.push(item).await?;
        }
        *lease = Some(working);
        Ok(waiting)
    }

    /// A working head holds while nothing built on it failed and nobody else moved the stored one past it.
    fn still_holds(&self, cell: &Cell, working: &Working) -> bool {
        !working.generation.has_failed() && cell.stored().is_some_and(|now| now.head_ver <= working.now.head_ver)
    }

    async fn build_next(
        &self,
        cell: &Arc<Cell>,
        working: &mut Working,
        wish: &Wish,
    ) -> Result<(Item, oneshot::Receiver<Result<Outcome>>)> {
        let now = Arc::clone(&working.now);
        let draft = &wish.draft;
        let witnesses = self.witnesses(&now, draft).await?;
        let (prev_events, depth) = now.next_place();
        let place = Place {
            room_id: Some(now.room_id.clone()),
            prev_events,
            auth_events: witnesses.iter().filter(|w| w.named).map(|w| w.event.pdu.event_id.clone()).collect(),
            depth,
            origin_server_ts: wish.ts.map_or_else(
                || self.cx.clock.now(),
                |ms| ruma::MilliSecondsSinceUnixEpoch(ruma::UInt::new_saturating(ms)),
            ),
        };
        let pdu = build::build(draft, &place, self.cx.signer(), now.rules)?;
        auth::check(&pdu, now.rules, |event_kind, key| {
            witnesses.iter().find(|w| w.event.pdu.is_state(event_kind, key)).map(|w| Arc::clone(&w.event.pdu))
        })?;
        let auth = witnesses.iter().filter(|w| w.named).map(|w| w.event.nid).collect();
        self.item(cell, working, Arc::new(pdu), auth, Base::Follow(now.head_ver), wish.txn.clone()).await
    }

    /// Everything that follows from a local event being accepted on top of the working head.
    async fn item(
        &self,
        cell: &Arc<Cell>,
        working: &mut Working,
        pdu: Arc<Pdu>,
        auth: Vec<i64>,
        base: Base,
        txn: Option<String>,
    ) -> Result<(Item, oneshot::Receiver<Result<Outcome>>)> {
        let nid = self.cx.numbers.next(Family::Event).await?;
        let sender_nid = self.cx.numbers.user(&pdu.sender).await?;
        let before = Arc::clone(&working.now);
        let state_key_nid = match &pdu.state_key {
            Some(key) => Some(self.cx.numbers.state_key(&pdu.kind, key).await?),
            None => None,
        };
        let change = state_key_nid.map(|key| Layer::one(StateKeyNumber(unsigned(key)), EventNumber(unsigned(nid))));
        let mut effects = Effects::default();
        let mut now = RoomNow::clone(&before);
        let (snapshot, row) = match &change {
            Some(change) => self.snapshots.next(now.nid, &before.snapshot, change).await?,
            None => (Arc::clone(&before.snapshot), None),
        };
        effects.states.extend(row);
        let event = Arc::new(Stored {
            nid,
            room_nid: now.nid,
            flags: storage::events::flags::LOCAL,
            state_nid: Some(before.snapshot.nid),
            state_after_nid: change.is_some().then_some(snapshot.nid),
            pdu,
        });
        self.events.built(Arc::clone(&event));
        if let Some(change) = &change {
            self.change_state(&mut now, nid, change, Some(&event), &mut effects).await?;
        }
        now.snapshot = snapshot;
        now.heads = vec![Head {
            event: Extremity { nid, event_id: event.pdu.event_id.clone() },
            depth: event.pdu.depth,
            own: true,
        }];
        now.depth = now.depth.max(event.place().0);
        now.head_ver += 1;
        let row = self.stream_row(working, &mut now, &event, sender_nid, txn, &mut effects).await?;
        let new = new_event(&event, sender_nid, state_key_nid, auth);
        let now = Arc::new(now);
        working.now = Arc::clone(&now);
        let (reply, told) = oneshot::channel();
        let item = Item {
            cell: Arc::clone(cell),
            generation: Arc::clone(&working.generation),
            base,
            after: now,
            event,
            write: Write::New(new),
            row: Some(row),
            effects,
            reply,
        };
        Ok((item, told))
    }

    /// An accepted event's row in the stream, with what it relates to, whom it notifies and what its sender has read.
    async fn stream_row(
        &self,
        working: &mut Working,
        now: &mut RoomNow,
        event: &Arc<Stored>,
        sender_nid: i64,
        txn: Option<String>,
        effects: &mut Effects,
    ) -> Result<NewRow> {
        let notified = self.notified(now, event).await?;
        let mut lane = self.relate(working, event, sender_nid, notified.by_default, effects).await?;
        if lane.thread_nid == 0 {
            now.notify_seq += i64::from(lane.notifies);
            lane.seq = now.notify_seq;
        }
        effects.push_items = notified.items(event, lane.thread_nid);
        if self.cx.is_local(&event.pdu.sender) && now.has_local(sender_nid) {
            // Who writes has read: the count of the sender's own lane starts anew.
            effects.read_marks.push(ReadMark {
                user_nid: sender_nid,
                room_nid: now.nid,
                thread_nid: lane.thread_nid,
                event_nid: event.nid,
                seq: lane.seq,
            });
        }
        let mut flags = 0;
        flags |= if effects.state_changes.is_empty() { 0 } else { row_flags::STATE_CHANGES };
        flags |= if event.has(storage::events::flags::LOCAL) { row_flags::LOCAL } else { 0 };
        flags |= if lane.notifies { row_flags::NOTIFIES } else { 0 };
        flags |= if effects.push_items.is_empty() { 0 } else { row_flags::EXCEPTIONS };
        Ok(NewRow { event_nid: event.nid, room_nid: now.nid, flags, thread_nid: lane.thread_nid, seq: lane.seq, txn })
    }

    /// The events of current state that vouch for a draft, and the create event.
    async fn witnesses(&self, now: &RoomNow, draft: &Draft) -> Result<Vec<Witness>> {
        let types =
            build::auth_types(&draft.kind, &draft.sender, draft.state_key.as_deref(), &draft.content, now.rules)
                .map_err(Error::Invalid)?;
        let mut found = Vec::with_capacity(types.len() + 1);
        for (event_kind, key) in &types {
            if let Some(event) = self.state_event(now, event_kind, key).await? {
                found.push(Witness { event, named: true });
            }
        }
        if !found.iter().any(|w| w.event.pdu.is_create())
            && let Some(event) = self.state_event(now, kind::CREATE, "").await?
        {
            found.push(Witness { event, named: false });
        }
        Ok(found)
    }

    /// Make a room: its create event, and what the closure wishes for once the room's id is known; stored together.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::TooLarge`], [`Error::Specific`] for a version we do not make; the database's.
    pub async fn create(
        &self,
        version: &RoomVersionId,
        create: Draft,
        room_id: Option<OwnedRoomId>,
        then: impl FnOnce(&RoomId) -> Vec<Wish>,
    ) -> Result<Arc<RoomNow>> {
        let rules = versions::rules(version)
            .map_err(|e| Error::Specific(crate::error::Code::UnsupportedRoomVersion, e.to_string()))?;
        let place = Place {
            room_id: room_id.filter(|_| !versions::room_id_is_create_hash(rules)),
            prev_events: Vec::new(),
            auth_events: Vec::new(),
            depth: 1,
            origin_server_ts: self.cells.creation_moment(self.cx.clock.now()),
        };
        let pdu = build::build(&create, &place, self.cx.signer(), rules)?;
        auth::check(&pdu, rules, |_, _| None)?;
        let room_id = pdu.room_id.clone();
        let nid = self.cx.numbers.next(Family::Room).await?;
        self.events.learn_room(nid, (room_id.clone(), rules));
        let mut working = Working {
            now: Arc::new(RoomNow::before_creation(nid, room_id.clone(), version.clone(), rules)),
            generation: Arc::new(Generation::default()),
            threads: HashMap::new(),
        };
        let cell = self.cells.get(nid);
        let mut items = vec![self.item(&cell, &mut working, Arc::new(pdu), Vec::new(), Base::Begin, None).await?];
        for wish in then(&room_id) {
            items.push(self.build_next(&cell, &mut working, &wish).await?);
        }
        let mut told = Vec::with_capacity(items.len());
        for (item, reply) in items {
            self.writer.push(item).await?;
            told.push(reply);
        }
        for reply in told {
            if !matches!(reply.await.map_err(|_| Error::Stopping)??, Outcome::Stored(_)) {
                return Err(Error::Specific(crate::error::Code::RoomInUse, "the room exists already".to_owned()));
            }
        }
        self.cells.learn(room_id, nid);
        self.now(nid).await
    }
}

fn extremities(head: &storage::rooms::Head) -> Result<Vec<Head<Extremity>>> {
    let rows = head.extremities()?.into_iter();
    rows.map(|(nid, id, depth, own)| {
        let event_id = OwnedEventId::try_from(id).map_err(Error::internal)?;
        Ok(Head { event: Extremity { nid, event_id }, depth, own })
    })
    .collect()
}

/// An event of current state that vouches for another.
struct Witness {
    event: Arc<Stored>,
    /// Whether it is named among `auth_events` (a version 12 room's create event is not).
    named: bool,
}

fn new_event(event: &Stored, sender_nid: i64, state_key_nid: Option<i64>, auth: Vec<i64>) -> NewEvent {
    NewEvent {
        nid: event.nid,
        event_id: event.pdu.event_id.to_string(),
        room_nid: event.room_nid,
        depth: event.place().0,
        flags: event.flags,
        visible: event.is_visible(),
        sender_nid,
        state_key_nid,
        ts: effects::number(event.pdu.origin_server_ts_ms()),
        state_nid: event.state_nid,
        state_after_nid: event.state_after_nid,
        auth,
        body: Arc::from(event.pdu.json.as_bytes()),
    }
}

/// A number of the database's, as the state has it.
fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}
