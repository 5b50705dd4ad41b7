//! Who waits for what: for each user of ours that syncs here, the position at which something last concerned them.
//!
//! A sync whose user has not been concerned since its token asks the database nothing. The listener of the news does no IO; what
//! needs the database (members of a room that is not in memory) is looked up once for the process, in a task of its own.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

use storage::members::{self, Member};
use tokio::sync::Notify as Bell;

use crate::{
    Context, Result,
    notify::{Change, Whisper},
    timeline::Timeline,
};

/// Users watched in memory; beyond it those nobody waits for are forgotten.
const USERS_MAX: usize = 100_000;
/// Members remembered as sent to devices of one user, for lazy loading; beyond it all are sent again.
const LAZY_MAX: usize = 20_000;

/// Family of [`Whisper::Forget`] for memberships that changed without an event, as when a room is forgotten.
pub(crate) const FORGET_MEMBERSHIPS: &str = "memberships";

/// What concerns one user.
#[derive(Debug)]
pub struct Entry {
    /// Their number.
    pub user_nid: i64,
    /// Nothing is known about positions up to this one.
    pub from: i64,
    /// The last position at which anything concerned them.
    pos: AtomicI64,
    /// The last at which something of theirs alone changed: account data, to-device, invitations, memberships.
    own_pos: AtomicI64,
    /// The last at which the keys of somebody they share a room with changed.
    device_pos: AtomicI64,
    /// Counts typing in their rooms.
    typing: AtomicU64,
    bell: Bell,
    rooms: RwLock<Option<Arc<Vec<Member>>>>,
    lazy: Mutex<HashSet<(String, i64, String)>>,
}

impl Entry {
    fn bump(&self, pos: i64) {
        self.pos.fetch_max(pos, Ordering::AcqRel);
        self.bell.notify_waiters();
    }

    /// The last position at which anything concerned them.
    #[must_use]
    pub fn pos(&self) -> i64 {
        self.pos.load(Ordering::Acquire)
    }

    /// Whether nothing concerned them after `since`.
    #[must_use]
    pub fn is_quiet_since(&self, since: i64) -> bool {
        since >= self.from && self.pos() <= since
    }

    /// Whether something of theirs alone may have changed after `since`.
    #[must_use]
    pub fn own_changed_since(&self, since: i64) -> bool {
        since < self.from || self.own_pos.load(Ordering::Acquire) > since
    }

    /// Whether keys of people they share rooms with may have changed after `since`.
    #[must_use]
    pub fn devices_changed_since(&self, since: i64) -> bool {
        since < self.from || self.device_pos.load(Ordering::Acquire) > since
    }

    /// Counts typing in their rooms.
    #[must_use]
    pub fn typing(&self) -> u64 {
        self.typing.load(Ordering::Acquire)
    }

    /// Ends at the next thing that concerns them.
    pub fn rung(&self) -> tokio::sync::futures::Notified<'_> {
        self.bell.notified()
    }

    /// Which of these members the device does not know yet; they count as known from now on.
    pub fn unknown_members(&self, device: &str, room_nid: i64, members: Vec<String>) -> Vec<String> {
        let mut lazy = self.lazy.lock().unwrap_or_else(PoisonError::into_inner);
        if lazy.len() > LAZY_MAX {
            lazy.clear();
        }
        members.into_iter().filter(|m| lazy.insert((device.to_owned(), room_nid, m.clone()))).collect()
    }

    /// The device begins anew and knows nobody.
    pub fn forget_members(&self, device: &str) {
        self.lazy.lock().unwrap_or_else(PoisonError::into_inner).retain(|(d, _, _)| d != device);
    }
}

/// All who sync here. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Watch {
    cx: Context,
    timeline: Timeline,
    entries: Arc<Mutex<HashMap<i64, Arc<Entry>>>>,
    /// For each room the last position at which a receipt changed; a room that is not in it has none since `from`.
    receipts: Arc<Mutex<HashMap<i64, i64>>>,
    from: i64,
}

impl Watch {
    /// Listen to the news.
    #[must_use]
    pub fn start(cx: Context, timeline: Timeline) -> Self {
        let from = cx.notify.stable();
        let watch = Self { cx, timeline, entries: Arc::default(), receipts: Arc::default(), from };
        let listener = watch.clone();
        watch.cx.notify.on_change(move |change| listener.hear(change));
        let listener = watch.clone();
        watch.cx.notify.on_whisper(move |whisper| match whisper {
            Whisper::Typing(room_nid, _) => listener.each_in_room(*room_nid, |entry| {
                entry.typing.fetch_add(1, Ordering::AcqRel);
                entry.bell.notify_waiters();
            }),
            Whisper::Forget(family, key) if family == FORGET_MEMBERSHIPS => {
                let entry = key.parse().ok().and_then(|user_nid: i64| listener.lock().get(&user_nid).cloned());
                if let Some(entry) = entry {
                    *entry.rooms.write().unwrap_or_else(PoisonError::into_inner) = None;
                }
            }
            _ => {}
        });
        watch
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<i64, Arc<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The entry of a user, made now if needed.
    #[must_use]
    pub fn user(&self, user_nid: i64) -> Arc<Entry> {
        let mut entries = self.lock();
        if entries.len() > USERS_MAX {
            entries.retain(|_, entry| Arc::strong_count(entry) > 1);
        }
        let entry = entries.entry(user_nid).or_insert_with(|| {
            Arc::new(Entry {
                user_nid,
                from: self.cx.notify.stable(),
                pos: AtomicI64::new(0),
                own_pos: AtomicI64::new(0),
                device_pos: AtomicI64::new(0),
                typing: AtomicU64::new(0),
                bell: Bell::new(),
                rooms: RwLock::default(),
                lazy: Mutex::default(),
            })
        });
        Arc::clone(entry)
    }

    /// The memberships of a user, from memory while they have not changed.
    ///
    /// # Errors
    /// The database's.
    pub async fn memberships(&self, entry: &Entry) -> Result<Arc<Vec<Member>>> {
        let known = entry.rooms.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(rooms) = known {
            return Ok(rooms);
        }
        let own_pos = entry.own_pos.load(Ordering::Acquire);
        let rooms = members::of_user(&mut self.cx.store.read().await?, entry.user_nid).await?;
        let rooms = Arc::new(rooms);
        let mut slot = entry.rooms.write().unwrap_or_else(PoisonError::into_inner);
        // A change that came while we read would be forgotten otherwise.
        if entry.own_pos.load(Ordering::Acquire) == own_pos {
            *slot = Some(Arc::clone(&rooms));
        }
        Ok(rooms)
    }

    /// Whether any of these rooms may have new receipts after `since`.
    #[must_use]
    pub fn receipts_changed(&self, rooms: &[i64], since: i64) -> bool {
        let positions = self.receipts.lock().unwrap_or_else(PoisonError::into_inner);
        since < self.from || rooms.iter().any(|nid| positions.get(nid).is_some_and(|pos| *pos > since))
    }

    fn hear(&self, change: &Change) {
        for room_nid in &change.receipt_rooms {
            self.receipts.lock().unwrap_or_else(PoisonError::into_inner).insert(*room_nid, change.last);
        }
        for user_nid in &change.users {
            if let Some(entry) = self.lock().get(user_nid).cloned() {
                entry.own_pos.fetch_max(change.last, Ordering::AcqRel);
                *entry.rooms.write().unwrap_or_else(PoisonError::into_inner) = None;
                entry.bump(change.last);
            }
        }
        for room_nid in change.rooms.iter().chain(&change.receipt_rooms) {
            let pos = change.last;
            self.each_in_room(*room_nid, move |entry| entry.bump(pos));
        }
        if !change.device_users.is_empty() {
            let (watch, users, pos) = (self.clone(), change.device_users.clone(), change.last);
            tokio::spawn(async move {
                if let Err(error) = watch.devices_changed(&users, pos).await {
                    tracing::warn!(%error, "those who share rooms with a changed device are not told yet");
                }
            });
        }
    }

    async fn devices_changed(&self, users: &[i64], pos: i64) -> Result<()> {
        let mut concerned: HashSet<i64> = users.iter().copied().collect();
        for user_nid in users {
            let mut tx = self.cx.store.read().await?;
            concerned.extend(members::sharing_with(&mut tx, *user_nid).await?);
        }
        let entries: Vec<Arc<Entry>> = {
            let all = self.lock();
            concerned.iter().filter_map(|nid| all.get(nid).cloned()).collect()
        };
        for entry in entries {
            entry.device_pos.fetch_max(pos, Ordering::AcqRel);
            entry.bump(pos);
        }
        Ok(())
    }

    /// Do something for each watched member of a room: at once when the room is in memory, else when it is.
    fn each_in_room(&self, room_nid: i64, act: impl Fn(&Entry) + Send + Sync + 'static) {
        let Some(now) = self.timeline.now_remembered(room_nid) else {
            let watch = self.clone();
            if watch.lock().is_empty() {
                return;
            }
            tokio::spawn(async move {
                if watch.timeline.now(room_nid).await.is_ok() {
                    watch.each_in_room(room_nid, act);
                }
            });
            return;
        };
        let local = &now.inhabitants.local;
        let entries: Vec<Arc<Entry>> = {
            let all = self.lock();
            if all.len() < local.len() {
                all.values().filter(|entry| local.binary_search(&entry.user_nid).is_ok()).cloned().collect()
            } else {
                local.iter().filter_map(|nid| all.get(nid).cloned()).collect()
            }
        };
        for entry in entries {
            act(&entry);
        }
    }
}
