//! The rooms in memory: each room's present, the newest events of its timeline, and the lease by which its writers queue.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use ruma::{OwnedRoomId, RoomId};
use storage::relations::Thread;

use super::{events::Stored, now::RoomNow};

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
    stored: RwLock<Option<Arc<RoomNow>>>,
    recent: RwLock<Recents>,
}

#[derive(Debug)]
struct Recents {
    /// Every event of the room after this position is in `events`.
    from: i64,
    events: VecDeque<Arc<Recent>>,
}

impl Cell {
    fn new(nid: i64) -> Self {
        Self {
            nid,
            lease: tokio::sync::Mutex::default(),
            stored: RwLock::default(),
            recent: RwLock::new(Recents { from: i64::MAX, events: VecDeque::new() }),
        }
    }

    /// The room as stored, if it is in memory.
    #[must_use]
    pub fn stored(&self) -> Option<Arc<RoomNow>> {
        self.stored.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The room was read from the database.
    pub fn loaded(&self, now: Arc<RoomNow>) {
        let mut stored = self.stored.write().unwrap_or_else(PoisonError::into_inner);
        if stored.as_ref().is_some_and(|s| s.head_ver >= now.head_ver) {
            return;
        }
        let mut recent = self.recent.write().unwrap_or_else(PoisonError::into_inner);
        *recent = Recents { from: now.last_pos, events: VecDeque::new() };
        *stored = Some(now);
    }

    /// Our own writer stored these events, in order; `now` is the room after them.
    pub fn advanced(&self, now: Arc<RoomNow>, events: impl IntoIterator<Item = Arc<Recent>>) {
        let mut stored = self.stored.write().unwrap_or_else(PoisonError::into_inner);
        let mut recent = self.recent.write().unwrap_or_else(PoisonError::into_inner);
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
        *stored = Some(now);
    }

    /// Another instance moved the room: what we know is old.
    pub fn outdated(&self) {
        *self.stored.write().unwrap_or_else(PoisonError::into_inner) = None;
        let mut recent = self.recent.write().unwrap_or_else(PoisonError::into_inner);
        *recent = Recents { from: i64::MAX, events: VecDeque::new() };
    }

    /// An event changed (it was redacted): readers from memory must see it so.
    pub fn replace(&self, event: &Arc<Stored>) {
        let mut recent = self.recent.write().unwrap_or_else(PoisonError::into_inner);
        for slot in &mut recent.events {
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
        let recent = self.recent.read().unwrap_or_else(PoisonError::into_inner);
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
