//! Who types in which room, in memory alone.
//!
//! Each instance holds the whole list of a room; a change travels as [`Whisper::Typing`] with the new list. The instance that a
//! user's request came to ends their typing when its time is over and tells the others; should it die, they end what it told
//! them after [`TIMEOUT_MAX`]. A lost whisper is mended by the next change of the room.
//!
//! Readers follow [`Typing::serial`], a count that is never behind the clock in milliseconds: so the count in a token of one
//! instance means the same to another, as far as their clocks agree.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    time::Duration,
};

use ruma::RoomId;

use crate::{Context, Result, accounts::User, joined, notify::Whisper};

/// The longest that typing lasts without being said again.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(120);
/// When the client does not say how long.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// Users listed as typing in one room; more are not shown.
const TYPISTS_PER_ROOM_MAX: usize = 100;
/// Rooms somebody types in; beyond it new ones are not shown.
const ROOMS_MAX: usize = 50_000;
/// How often typing that is over is looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Users that type in a room now.
#[derive(Debug, Default)]
struct RoomTypists {
    /// Until when, by our clock; and whether this process was told by the user.
    until_ms: BTreeMap<i64, (u64, bool)>,
    /// Count at the last change.
    serial: u64,
}

#[derive(Debug, Default)]
struct State {
    rooms: HashMap<i64, RoomTypists>,
    serial: u64,
}

type LocalListener = Box<dyn Fn(i64, i64, bool) + Send + Sync>;

struct Inner {
    cx: Context,
    state: Mutex<State>,
    local: OnceLock<LocalListener>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Typing").field("state", &self.state).finish_non_exhaustive()
    }
}

/// Who types where. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Typing(Arc<Inner>);

impl Typing {
    /// On `cx`; listens to the other instances and ends typing in time, as long as somebody holds it.
    #[must_use]
    pub fn new(cx: Context) -> Self {
        let typing = Self(Arc::new(Inner { cx, state: Mutex::default(), local: OnceLock::new() }));
        let weak = Arc::downgrade(&typing.0);
        typing.0.cx.notify.on_whisper(move |whisper| {
            if let (Whisper::Typing(room_nid, user_nids), Some(inner)) = (whisper, weak.upgrade()) {
                Self(inner).hear(*room_nid, user_nids);
            }
        });
        let weak: Weak<Inner> = Arc::downgrade(&typing.0);
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(SWEEP_EVERY);
            loop {
                ticks.tick().await;
                let Some(inner) = weak.upgrade() else { return };
                Self(inner).sweep();
            }
        });
        typing
    }

    /// Be told when a user of ours starts or stops typing, by a request to this process: (room, user, whether they type). Set
    /// once, by federation.
    pub fn on_local_change(&self, listener: impl Fn(i64, i64, bool) + Send + Sync + 'static) {
        let _ = self.0.local.set(Box::new(listener));
    }

    /// `user` types for `timeout` (at most [`TIMEOUT_MAX`]), or stopped.
    ///
    /// # Errors
    /// [`crate::Error::Forbidden`] when the user is not in the room.
    pub async fn set(&self, user: &User, room_id: &RoomId, timeout: Option<Duration>) -> Result<()> {
        let room_nid = joined::room(&self.0.cx, room_id, user.nid).await?;
        self.put(room_nid, user.nid, timeout, true);
        Ok(())
    }

    /// A user of another server types or stopped. Whether they are in the room is for the caller to have checked.
    pub fn receive(&self, room_nid: i64, user_nid: i64, is_typing: bool) {
        self.put(room_nid, user_nid, is_typing.then_some(TIMEOUT_DEFAULT), false);
    }

    /// The users that type in a room, and the count at its last change.
    #[must_use]
    pub fn room(&self, room_nid: i64) -> (Vec<i64>, u64) {
        self.state()
            .rooms
            .get(&room_nid)
            .map_or((Vec::new(), 0), |room| (room.until_ms.keys().copied().collect(), room.serial))
    }

    /// Which of `rooms` changed last after the count was `since` and no later than it was `until`.
    #[must_use]
    pub fn changed(&self, rooms: &[i64], since: u64, until: u64) -> Vec<i64> {
        let state = self.state();
        let has_changed = |room: &RoomTypists| room.serial > since && room.serial <= until;
        rooms.iter().copied().filter(|nid| state.rooms.get(nid).is_some_and(has_changed)).collect()
    }

    /// Count of the last change.
    #[must_use]
    pub fn serial(&self) -> u64 {
        self.state().serial
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, room_nid: i64, user_nid: i64, timeout: Option<Duration>, is_local: bool) {
        let now_ms = self.0.cx.clock.now_ms();
        let news = {
            let mut state = self.state();
            if !state.rooms.contains_key(&room_nid) && (timeout.is_none() || state.rooms.len() >= ROOMS_MAX) {
                return;
            }
            let room = state.rooms.entry(room_nid).or_default();
            let is_new = match timeout {
                Some(timeout) => {
                    let is_new = !room.until_ms.contains_key(&user_nid);
                    if is_new && room.until_ms.len() >= TYPISTS_PER_ROOM_MAX {
                        return;
                    }
                    room.until_ms.insert(user_nid, (now_ms + ms(timeout.min(TIMEOUT_MAX)), is_local));
                    is_new
                }
                None => room.until_ms.remove(&user_nid).is_some(),
            };
            is_new.then(|| state.changed(room_nid, now_ms))
        };
        if let Some(typists) = news {
            self.0.cx.notify.whisper(&Whisper::Typing(room_nid, typists));
        }
        // Also when it only lasts longer: the other servers must be told again in time.
        if is_local && let Some(listener) = self.0.local.get() {
            listener(room_nid, user_nid, timeout.is_some());
        }
    }

    /// Take a list that an instance told (this one hears itself too, and then nothing is new).
    fn hear(&self, room_nid: i64, user_nids: &[i64]) {
        let now_ms = self.0.cx.clock.now_ms();
        let until_ms = now_ms + ms(TIMEOUT_MAX);
        let mut state = self.state();
        if !state.rooms.contains_key(&room_nid) && (user_nids.is_empty() || state.rooms.len() >= ROOMS_MAX) {
            return;
        }
        let room = state.rooms.entry(room_nid).or_default();
        let before: Vec<i64> = room.until_ms.keys().copied().collect();
        room.until_ms.retain(|user_nid, _| user_nids.contains(user_nid));
        for user_nid in user_nids.iter().take(TYPISTS_PER_ROOM_MAX) {
            room.until_ms.entry(*user_nid).or_insert((until_ms, false));
        }
        if !room.until_ms.keys().copied().eq(before) {
            state.changed(room_nid, now_ms);
        }
    }

    /// End the typing whose time is over.
    pub fn sweep(&self) {
        let now_ms = self.0.cx.clock.now_ms();
        let mut stopped = Vec::new();
        let news: Vec<(i64, Vec<i64>)> = {
            let mut state = self.state();
            let mut changed = Vec::new();
            // A room with nobody typing is kept for a while, so that readers learn that the last one stopped.
            for (room_nid, room) in &mut state.rooms {
                let len = room.until_ms.len();
                room.until_ms.retain(|user_nid, (until_ms, is_local)| {
                    let goes_on = *until_ms > now_ms;
                    if !goes_on && *is_local {
                        stopped.push((*room_nid, *user_nid));
                    }
                    goes_on
                });
                if room.until_ms.len() != len {
                    changed.push(*room_nid);
                }
            }
            let news = changed.into_iter().map(|nid| (nid, state.changed(nid, now_ms))).collect();
            state.forget_quiet_rooms();
            news
        };
        for (room_nid, typists) in news {
            self.0.cx.notify.whisper(&Whisper::Typing(room_nid, typists));
        }
        if let Some(listener) = self.0.local.get() {
            for (room_nid, user_nid) in stopped {
                listener(room_nid, user_nid, false);
            }
        }
    }
}

/// Rooms with nobody typing that are remembered, so that late readers learn of the end.
const QUIET_ROOMS_MAX: usize = 5000;

impl State {
    /// Count a change of a room; returns who types there now.
    fn changed(&mut self, room_nid: i64, now_ms: u64) -> Vec<i64> {
        self.serial = now_ms.max(self.serial + 1);
        let serial = self.serial;
        self.rooms.get_mut(&room_nid).map_or_else(Vec::new, |room| {
            room.serial = serial;
            room.until_ms.keys().copied().collect()
        })
    }

    fn forget_quiet_rooms(&mut self) {
        let mut quiet: Vec<(u64, i64)> = self
            .rooms
            .iter()
            .filter(|(_, room)| room.until_ms.is_empty())
            .map(|(nid, room)| (room.serial, *nid))
            .collect();
        if quiet.len() > QUIET_ROOMS_MAX {
            quiet.sort_unstable();
            for (_, nid) in &quiet[..quiet.len() - QUIET_ROOMS_MAX / 2] {
                self.rooms.remove(nid);
            }
        }
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
