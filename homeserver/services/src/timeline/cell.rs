//! The rooms in memory: each room's present, the newest events of its timeline, and the lease by which its writers queue.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{
        Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use ruma::{MilliSecondsSinceUnixEpoch, OwnedRoomId, RoomId, uint};
use storage::relations::Thread;

use super::{
    events::Stored,
    now::{Inhabitants, RoomNow},
};
use crate::notify::Change;

/// Newest events kept for each room in memory.
pub const RECENT_MAX: usize = 64;
/// Rooms kept in memory; beyond it those nobody uses are dropped.
const ROOMS_MAX: usize = 20_000;

/// An event in the timeline.
#[derive(Debug, Clone)]
pub struct Recent {
    /// Its position.
    pub pos: i64,
    /// See [`storage::timeline::flags`].
    pub flags: i64,
    /// Root of its thread, or 0.
    pub thread_nid: i64,
    /// Notifying events of its lane so far.
    pub seq: i64,
    /// Sender's device and transaction id.
    pub txn: Option<Arc<str>>,
    /// The event.
    pub event: Arc<Stored>,
}

/// Says whether what was built on a head that is not stored yet can still be stored.
#[derive(Debug, Default)]
pub struct Generation(AtomicBool);

impl Generation {
    /// Somebody else moved the room, or storing failed: everything built since is void.
    pub fn fail(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// True when it is void.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// A room's head as its writers see it: ahead of the database by what waits to be stored.
#[derive(Debug, Clone)]
pub struct Working {
    /// The room after everything built so far.
    pub now: Arc<RoomNow>,
    /// Shared by everything built since the head was last read.
    pub generation: Arc<Generation>,
    /// Threads written to since then.
    pub threads: HashMap<i64, Thread>,
}

/// One room in memory.
#[derive(Debug)]
pub struct Cell {
    /// The room's number.
    pub nid: i64,
    /// Writers of this process queue here; across processes the head's version decides.
    pub lease: tokio::sync::Mutex<Option<Working>>,
    present: RwLock<Present>,
}

/// What memory knows of a room's present.
#[derive(Debug)]
struct Present {
    /// The room as stored; `None` when memory does not know it.
    stored: Option<Arc<RoomNow>>,
    /// The newest position of the room that was told: what does not reach it is old.
    told: i64,
    recent: Recents,
    /// Who is in the room: known longer than the rest, until state changes.
    inhabitants: Option<Arc<Inhabitants>>,
}

#[derive(Debug)]
struct Recents {
    /// Every event of the room after this position is in `events`.
    from: i64,
    events: VecDeque<Arc<Recent>>,
}

impl Recents {
    fn after(from: i64) -> Self {
        Self { from, events: VecDeque::new() }
    }
}

impl Present {
    fn forget(&mut self) {
        self.stored = None;
        self.recent = Recents::after(i64::MAX);
    }
}

impl Cell {
    fn new(nid: i64) -> Self {
        let present = Present { stored: None, told: 0, recent: Recents::after(i64::MAX), inhabitants: None };
        Self { nid, lease: tokio::sync::Mutex::default(), present: RwLock::new(present) }
    }

    fn read(&self) -> RwLockReadGuard<'_, Present> {
        self.present.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Present> {
        self.present.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The room as stored, if it is in memory.
    #[must_use]
    pub fn stored(&self) -> Option<Arc<RoomNow>> {
        self.read().stored.clone()
    }

    /// The room was read from the database. What was read before newer news came is of no use to later readers.
    pub fn loaded(&self, now: Arc<RoomNow>) {
        let mut present = self.write();
        if now.last_pos < present.told || present.stored.as_ref().is_some_and(|s| s.head_ver >= now.head_ver) {
            return;
        }
        present.recent = Recents::after(now.last_pos);
        present.inhabitants = Some(Arc::clone(&now.inhabitants));
        present.stored = Some(now);
    }

    /// Our own writer stored these events, in order; `now` is the room after them.
    pub fn advanced(&self, now: Arc<RoomNow>, events: impl IntoIterator<Item = Arc<Recent>>) {
        let mut present = self.write();
        // Another instance wrote upon it, and we were told of that before our own writer came to tell.
        if now.last_pos < present.told || present.stored.as_ref().is_some_and(|s| s.head_ver > now.head_ver) {
            return;
        }
        let recent = &mut present.recent;
        for event in events {
            recent.events.push_back(event);
            if recent.events.len() > RECENT_MAX
                && let Some(oldest) = recent.events.pop_front()
            {
                recent.from = oldest.pos;
            }
        }
        if recent.from == i64::MAX {
            // The room is new to memory: what we know begins with these events.
            recent.from = recent.events.front().map_or(i64::MAX, |first| first.pos - 1);
        }
        present.inhabitants = Some(Arc::clone(&now.inhabitants));
        present.stored = Some(now);
    }

    /// The room's newest position is `pos`, as the news say: what does not reach it is old. `changes_state`: its state may have
    /// changed on the way.
    pub fn told(&self, pos: i64, changes_state: bool) {
        let mut present = self.write();
        present.told = present.told.max(pos);
        match &present.stored {
            Some(now) if now.last_pos >= pos => {}
            _ => {
                present.forget();
                present.inhabitants.take_if(|_| changes_state);
            }
        }
    }

    /// Another instance moved the room: what we know is old.
    pub fn outdated(&self) {
        let mut present = self.write();
        present.forget();
        present.inhabitants = None;
    }

    /// Who is in the room, if that is known.
    #[must_use]
    pub fn inhabitants(&self) -> Option<Arc<Inhabitants>> {
        self.read().inhabitants.clone()
    }

    /// An event changed (it was redacted): readers from memory must see it so.
    pub fn replace(&self, event: &Arc<Stored>) {
        for slot in &mut self.write().recent.events {
            if slot.event.nid == event.nid {
                let mut changed = Recent::clone(slot);
                changed.event = Arc::clone(event);
                *slot = Arc::new(changed);
            }
        }
    }

    /// All events after `since`, if memory reaches back so far.
    #[must_use]
    pub fn recent_since(&self, since: i64) -> Option<Vec<Arc<Recent>>> {
        let present = self.read();
        let recent = &present.recent;
        (since >= recent.from).then(|| recent.events.iter().filter(|e| e.pos > since).cloned().collect())
    }
}

/// All rooms in memory. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Cells(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    cells: HashMap<i64, Arc<Cell>>,
    nids: HashMap<OwnedRoomId, i64>,
    /// When this process made its last room.
    created_at: Option<MilliSecondsSinceUnixEpoch>,
}

impl Cells {
    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cell of a room, made now if needed.
    #[must_use]
    pub fn get(&self, nid: i64) -> Arc<Cell> {
        let mut inner = self.lock();
        if inner.cells.len() > ROOMS_MAX {
            inner.cells.retain(|_, cell| Arc::strong_count(cell) > 1);
            inner.nids.clear();
        }
        Arc::clone(inner.cells.entry(nid).or_insert_with(|| Arc::new(Cell::new(nid))))
    }

    /// The cell of a room, if it is in memory.
    #[must_use]
    pub fn peek(&self, nid: i64) -> Option<Arc<Cell>> {
        self.lock().cells.get(&nid).cloned()
    }

    /// A moment for a room to be made, `now` or the next that is free: the id of a room of version 12 is the hash of its create
    /// event, which must not come twice.
    #[must_use]
    pub fn creation_moment(&self, now: MilliSecondsSinceUnixEpoch) -> MilliSecondsSinceUnixEpoch {
        let mut inner = self.lock();
        let after_last = inner.created_at.map(|last| MilliSecondsSinceUnixEpoch(last.0.saturating_add(uint!(1))));
        let moment = after_last.map_or(now, |next| next.max(now));
        inner.created_at = Some(moment);
        moment
    }

    /// The news: what is known of rooms that moved since is old.
    pub fn hear(&self, change: &Change) {
        // A repair names as many rooms as moved in the meantime.
        let state_rooms: HashSet<i64> = change.state_rooms.iter().copied().collect();
        for (nid, pos) in &change.rooms {
            if let Some(cell) = self.peek(*nid) {
                cell.told(*pos, state_rooms.contains(nid));
            }
        }
    }

    /// The number of a room, if it is in memory.
    #[must_use]
    pub fn nid(&self, room_id: &RoomId) -> Option<i64> {
        self.lock().nids.get(room_id).copied()
    }

    /// Remember a room's number.
    pub fn learn(&self, room_id: OwnedRoomId, nid: i64) {
        self.lock().nids.insert(room_id, nid);
    }
}
