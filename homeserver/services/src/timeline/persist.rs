//! The writer: gathers what is ready in all rooms and stores it in one transaction.
//!
//! 1. Take what waits, at most [`BATCH_MAX`] events; whatever arrives during a commit is the next batch, so batches grow with load
//!    and a lone event never waits for others.
//! 2. Compare and set the heads of all rooms concerned, in ascending order (no deadlocks between instances). A room that lost
//!    drops out: what was built on its old head is void, its senders build anew.
//! 3. Store the winners, the stream last, commit; then tell memory, the news and the senders, in this order.

use std::{collections::BTreeMap, sync::Arc};

use storage::{
    Tx,
    events::{self, NewEvent, flags},
    members::{self, NewMember},
    receipts,
    relations::{self, NewRelation, Thread},
    remote_device_lists,
    rooms::{self, Advance, Head},
    states::{self, NewState},
    timeline::{self, NewRow, PushItem, ReadMark, StateChange},
    unread,
};
use tokio::sync::{mpsc, oneshot};

use super::{
    cell::{Cell, Generation, Recent},
    events::{Events, FORGET_EVENT, Stored},
    now::RoomNow,
};
use crate::{
    Context, Error, Result,
    notify::{Change, Whisper},
};

/// Events stored in one transaction.
const BATCH_MAX: usize = 64;
/// Events that may wait for the writer.
const QUEUE_MAX: usize = 4096;

/// Threads that are marked as read for somebody who joins, those with the newest events first.
const THREADS_MARKED_MAX: i64 = 1000;

/// How an event's row comes to be.
#[derive(Debug, Clone)]
pub enum Write {
    /// It is new here.
    New(NewEvent),
    /// It was kept as an outlier and has found its place.
    Place,
}

/// What an event moves of its room's head.
#[derive(Debug, Clone)]
pub enum Base {
    /// The room begins with it.
    Begin,
    /// The head must be at this version.
    Follow(i64),
    /// Nothing: it was refused, or belongs to the past.
    Aside,
}

/// What an event causes besides its own row.
#[derive(Debug, Clone, Default)]
pub struct Effects {
    /// Snapshots to store.
    pub states: Vec<NewState>,
    /// Changes of current state.
    pub state_changes: Vec<StateChange>,
    /// Memberships that changed: user, membership, member event.
    pub members: Vec<(i64, String, i64)>,
    /// Members whose entry went away.
    pub members_gone: Vec<i64>,
    /// Users of other servers who were in the room and are not any more.
    pub strangers_gone: Vec<i64>,
    /// Whether the last user of ours has left the room.
    pub is_deserted: bool,
    /// Whether the room's facts changed.
    pub facts: bool,
    /// What it says about another event.
    pub relation: Option<NewRelation>,
    /// Its thread after it.
    pub thread: Option<Thread>,
    /// What its sender, or a member who just joined, has read with it.
    pub read_marks: Vec<ReadMark>,
    /// Users of ours who joined a room that was there before.
    pub newcomers: Vec<i64>,
    /// Notifications beyond the default.
    pub push_items: Vec<PushItem>,
    /// Events it redacts, as they are afterwards.
    pub redacted: Vec<Arc<Stored>>,
    /// Users to be woken besides the members.
    pub users: Vec<i64>,
    /// Predecessors we do not have.
    pub missing: Vec<String>,
}

/// An event on its way to the database.
#[derive(Debug)]
pub struct Item {
    /// Its room.
    pub cell: Arc<Cell>,
    /// Whether what it builds on still holds.
    pub generation: Arc<Generation>,
    /// What it moves.
    pub base: Base,
    /// The room after it.
    pub after: Arc<RoomNow>,
    /// The event.
    pub event: Arc<Stored>,
    /// How its row comes to be.
    pub write: Write,
    /// Its row in the stream, if clients see it.
    pub row: Option<NewRow>,
    /// What else it causes.
    pub effects: Effects,
    /// Told when it is stored.
    pub reply: oneshot::Sender<Result<Outcome>>,
}

/// How storing ended when nothing failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Stored; its position, 0 when it is not in the stream.
    Stored(i64),
    /// The room had moved: build anew.
    Lost,
    /// This event, or an event with this transaction id, was stored before.
    Duplicate,
}

/// Where items wait for the writer.
#[derive(Debug, Clone)]
pub struct Writer(mpsc::Sender<Item>);

impl Writer {
    /// Start the writer of this process.
    #[must_use]
    pub fn start(cx: Context, events: Events) -> Self {
        let (sender, mut waiting) = mpsc::channel::<Item>(QUEUE_MAX);
        tokio::spawn(async move {
            let mut batch = Vec::with_capacity(BATCH_MAX);
            while waiting.recv_many(&mut batch, BATCH_MAX).await > 0 {
                // Senders that are just done with building come along.
                tokio::task::yield_now().await;
                while batch.len() < BATCH_MAX {
                    let Ok(item) = waiting.try_recv() else { break };
                    batch.push(item);
                }
                store_batch(&cx, &events, std::mem::take(&mut batch)).await;
            }
        });
        Self(sender)
    }

    /// Put an item into the queue. Items of one room must come in the order they were built.
    ///
    /// # Errors
    /// [`Error::Stopping`].
    pub async fn push(&self, item: Item) -> Result<()> {
        self.0.send(item).await.map_err(|_| Error::Stopping)
    }
}

async fn store_batch(cx: &Context, all_events: &Events, batch: Vec<Item>) {
    let many = batch.len() > 1;
    let batch = match try_store(cx, all_events, batch).await {
        Ok(()) => return,
        Err((batch, error)) if many && is_particular(&error) => batch,
        Err((batch, error)) => return fail(all_events, batch, &error),
    };
    // One of them stops all: find out which.
    for item in batch {
        if let Err((one, error)) = try_store(cx, all_events, vec![item]).await {
            fail(all_events, one, &error);
        }
    }
}

/// Whether an error may be the fault of one item of a batch.
fn is_particular(error: &Error) -> bool {
    matches!(error, Error::Storage(error) if error.is_duplicate() || error.is_retryable())
}

fn fail(all_events: &Events, batch: Vec<Item>, error: &Error) {
    let outcome = match error {
        Error::Storage(error) if error.is_duplicate() => Some(Outcome::Duplicate),
        Error::Storage(error) if error.is_retryable() => Some(Outcome::Lost),
        _ => None,
    };
    for item in batch {
        item.generation.fail();
        all_events.forget(item.event.nid);
        let _ = item.reply.send(match outcome {
            Some(outcome) => Ok(outcome),
            None => Err(Error::Internal(error.to_string())),
        });
    }
}

async fn try_store(cx: &Context, all_events: &Events, batch: Vec<Item>) -> Result<(), (Vec<Item>, Error)> {
    let (batch, lost): (Vec<_>, Vec<_>) = batch.into_iter().partition(|item| !item.generation.has_failed());
    for item in lost {
        all_events.forget(item.event.nid);
        let _ = item.reply.send(Ok(Outcome::Lost));
    }
    if batch.is_empty() {
        return Ok(());
    }
    let mut tx = match cx.store.begin().await {
        Ok(tx) => tx,
        Err(error) => return Err((batch, error.into())),
    };
    let batch = match move_heads(&mut tx, all_events, batch).await {
        Ok(batch) => batch,
        Err((batch, error)) => return Err((batch, error)),
    };
    if batch.is_empty() {
        let _ = tx.rollback().await;
        return Ok(());
    }
    let first = match write(&mut tx, &batch).await {
        Ok(()) => match tx.commit().await {
            Ok(span) => span.first,
            Err(error) => return Err((batch, error.into())),
        },
        Err(error) => {
            let _ = tx.rollback().await;
            return Err((batch, error));
        }
    };
    tell(cx, all_events, batch, first);
    Ok(())
}

/// Compare and set every head; give back the items of the rooms that could be moved.
async fn move_heads(tx: &mut Tx, all_events: &Events, batch: Vec<Item>) -> Result<Vec<Item>, (Vec<Item>, Error)> {
    let mut ranges: BTreeMap<i64, (usize, usize)> = BTreeMap::new();
    for (at, item) in batch.iter().enumerate() {
        if !matches!(item.base, Base::Aside) {
            ranges.entry(item.cell.nid).or_insert((at, at)).1 = at;
        }
    }
    let mut lost = Vec::new();
    for (nid, (first, last)) in ranges {
        let after = &batch[last].after;
        let moved = match batch[first].base {
            Base::Begin => rooms::create(tx, &head_row(after)).await,
            Base::Follow(from) => rooms::advance(tx, &advance(after, from)).await,
            Base::Aside => Ok(true),
        };
        match moved {
            Ok(true) => {}
            Ok(false) => lost.push(nid),
            Err(error) => return Err((batch, error.into())),
        }
    }
    if lost.is_empty() {
        return Ok(batch);
    }
    let (winners, losers): (Vec<_>, Vec<_>) = batch.into_iter().partition(|item| !lost.contains(&item.cell.nid));
    for item in losers {
        item.generation.fail();
        item.cell.outdated();
        all_events.forget(item.event.nid);
        let _ = item.reply.send(Ok(Outcome::Lost));
    }
    Ok(winners)
}

fn head_row(now: &RoomNow) -> Head {
    Head {
        nid: now.nid,
        room_id: now.room_id.to_string(),
        version: now.version.to_string(),
        head_ver: now.head_ver,
        heads: now.heads_json(),
        state_nid: now.snapshot.nid,
        depth: now.depth,
        notify_seq: now.notify_seq,
        is_partial: now.is_partial,
    }
}

fn advance(now: &RoomNow, from: i64) -> Advance {
    Advance {
        nid: now.nid,
        from,
        to: now.head_ver,
        heads: now.heads_json(),
        state_nid: now.snapshot.nid,
        depth: now.depth,
        notify_seq: now.notify_seq,
    }
}

/// Everything but the heads. The stream comes last: on PostgreSQL its positions are given inside the commit.
async fn write(tx: &mut Tx, batch: &[Item]) -> Result<()> {
    let mut facts: BTreeMap<i64, &Arc<RoomNow>> = BTreeMap::new();
    let mut marks: BTreeMap<(i64, i64, i64), ReadMark> = BTreeMap::new();
    let mut members: MembersNow<'_> = BTreeMap::new();
    let mut state_changes: Vec<StateChange> = Vec::new();
    let mut push_items: Vec<PushItem> = Vec::new();
    let mut streamed = Vec::with_capacity(batch.len());
    let mut placed = Vec::new();
    for item in batch {
        let effects = &item.effects;
        for state in &effects.states {
            states::put(tx, state).await?;
        }
        members.extend(effects.members.iter().map(|(user_nid, membership, event_nid)| {
            ((item.cell.nid, *user_nid), Some((membership.as_str(), *event_nid)))
        }));
        members.extend(effects.members_gone.iter().map(|user_nid| ((item.cell.nid, *user_nid), None)));
        state_changes.extend(&effects.state_changes);
        push_items.extend(effects.push_items.iter().cloned());
        if effects.facts {
            facts.insert(item.cell.nid, &item.after);
        }
        if let Some(relation) = &effects.relation {
            relations::put(tx, relation).await?;
        }
        if let Some(thread) = &effects.thread {
            relations::put_thread(tx, thread).await?;
        }
        for event in &effects.redacted {
            events::set_body(tx, event.nid, event.flags, event.pdu.json.as_bytes()).await?;
            relations::remove_child(tx, event.nid).await?;
            unread::retract(tx, event.nid).await?;
        }
        for event_id in &effects.missing {
            let depth = i64::try_from(item.event.pdu.depth).unwrap_or(i64::MAX);
            events::put_missing(tx, item.cell.nid, event_id, item.event.nid, depth).await?;
        }
        if !item.event.has(flags::LOCAL) {
            events::found(tx, item.cell.nid, item.event.pdu.event_id.as_str()).await?;
        }
        for user_nid in &effects.newcomers {
            receipts::enter_room(tx, *user_nid, item.cell.nid, item.event.nid, THREADS_MARKED_MAX).await?;
        }
        for mark in &effects.read_marks {
            marks.insert((mark.user_nid, mark.room_nid, mark.thread_nid), *mark);
        }
        match (&item.write, &item.row) {
            (Write::New(event), Some(row)) => streamed.push((event.clone(), row.clone())),
            (Write::New(event), None) => drop(events::insert(tx, event).await?),
            (Write::Place, row) => placed.push((&item.event, row)),
        }
    }
    write_members(tx, members).await?;
    for item in batch {
        // Their servers may tell us nothing of their devices from now on: our copies are to be fetched anew.
        if !item.effects.strangers_gone.is_empty() {
            remote_device_lists::outdate(tx, &item.effects.strangers_gone).await?;
        }
        if item.effects.is_deserted {
            remote_device_lists::outdate_in_room(tx, item.cell.nid).await?;
        }
    }
    timeline::put_state_changes(tx, &state_changes).await?;
    timeline::put_push_items(tx, &push_items).await?;
    for now in facts.values() {
        rooms::put_facts(tx, &now.facts).await?;
    }
    timeline::put_read_marks(tx, &marks.into_values().collect::<Vec<_>>()).await?;
    for (event, row) in placed {
        let visible = event.flags & (flags::OUTLIER | flags::REJECTED | flags::SOFT_FAILED) == 0;
        events::set_place(tx, event.nid, event.flags, visible, event.state_nid, event.state_after_nid).await?;
        if let Some(row) = row {
            timeline::append_stored(tx, row).await?;
        }
    }
    if !streamed.is_empty() {
        timeline::append(tx, &streamed).await?;
    }
    Ok(())
}

/// The last word of a batch on each member: their membership and member event, or that their entry went away.
type MembersNow<'a> = BTreeMap<(i64, i64), Option<(&'a str, i64)>>;

async fn write_members(tx: &mut Tx, now: MembersNow<'_>) -> Result<()> {
    let mut rows = Vec::with_capacity(now.len());
    for ((room_nid, user_nid), member) in now {
        match member {
            Some((membership, event_nid)) => rows.push(NewMember { room_nid, user_nid, membership, event_nid }),
            None => members::remove(tx, room_nid, user_nid).await?,
        }
    }
    Ok(members::put(tx, &rows).await?)
}

/// The events of a batch that were stored before and changed, with their flags now.
fn changed_events(batch: &[Item]) -> Vec<(i64, i64)> {
    let placed = batch.iter().filter(|item| matches!(item.write, Write::Place)).map(|item| &item.event);
    let redacted = batch.iter().flat_map(|item| &item.effects.redacted);
    placed.chain(redacted).map(|event| (event.nid, event.flags)).collect()
}

/// What a batch did to one room.
struct Advanced {
    cell: Arc<Cell>,
    /// The room after it, if its present changed.
    now: Option<Arc<RoomNow>>,
    recent: Vec<Arc<Recent>>,
    /// The position of its newest event; 0 without one.
    last_pos: i64,
}

impl Advanced {
    fn new(cell: &Arc<Cell>) -> Self {
        Self { cell: Arc::clone(cell), now: None, recent: Vec::new(), last_pos: 0 }
    }
}

/// Memory first, then the news, then the senders: whoever hears of an event finds it.
fn tell(cx: &Context, all_events: &Events, batch: Vec<Item>, first: i64) {
    // Positions are given in the order rows were written: outliers that found their place first.
    let mut pos = first;
    let mut positions = vec![0; batch.len()];
    for is_placed in [true, false] {
        for (at, item) in batch.iter().enumerate() {
            if item.row.is_some() && matches!(item.write, Write::Place) == is_placed {
                positions[at] = pos;
                pos += 1;
            }
        }
    }
    let mut change = Change { first, last: pos - 1, events: changed_events(&batch), ..Change::default() };
    let mut rooms: BTreeMap<i64, Advanced> = BTreeMap::new();
    for (item, pos) in batch.iter().zip(&positions) {
        all_events.put(Arc::clone(&item.event));
        let room = rooms.entry(item.cell.nid).or_insert_with(|| Advanced::new(&item.cell));
        if !matches!(item.base, Base::Aside) {
            room.now = Some(Arc::clone(&item.after));
        }
        if let Some(row) = &item.row {
            room.last_pos = room.last_pos.max(*pos);
            room.recent.push(Arc::new(Recent {
                pos: *pos,
                flags: row.flags,
                thread_nid: row.thread_nid,
                seq: row.seq,
                txn: row.txn.as_deref().map(Arc::from),
                event: Arc::clone(&item.event),
            }));
        }
        if !item.effects.state_changes.is_empty() {
            change.state_rooms.push(item.cell.nid);
        }
        if !item.effects.members.is_empty() || !item.effects.members_gone.is_empty() {
            change.member_rooms.push(item.cell.nid);
        }
        change.members.extend(&item.effects.users);
        for event in &item.effects.redacted {
            all_events.put(Arc::clone(event));
        }
    }
    for (nid, Advanced { cell, now, recent, last_pos }) in rooms {
        if last_pos > 0 {
            change.rooms.push((nid, last_pos));
        }
        if let Some(now) = now {
            let mut now = RoomNow::clone(&now);
            now.last_pos = now.last_pos.max(last_pos);
            cell.advanced(Arc::new(now), recent);
        }
    }
    for item in &batch {
        for event in &item.effects.redacted {
            item.cell.replace(event);
        }
    }
    change.state_rooms.dedup();
    change.member_rooms.dedup();
    if change.first > change.last {
        // Nothing of it is in the stream, so no position tells of it.
        for (nid, _) in &change.events {
            cx.notify.whisper(&Whisper::Forget(FORGET_EVENT.to_owned(), nid.to_string()));
        }
    }
    cx.notify.publish(change);
    for (item, pos) in batch.into_iter().zip(positions) {
        let _ = item.reply.send(Ok(Outcome::Stored(pos)));
    }
}
