//! Who waits for what: for each user of ours that syncs here, the position at which something last concerned them.
//!
//! A sync whose user has not been concerned since its token asks the database nothing. The listener of the news does no IO; what
//! needs the database (members of a room that is not in memory) is looked up once for the process, in a task of its own, and until
//! that has ended nobody is taken for unconcerned ([`Watch::is_quiet`]).

use std::{
    collections::{BTreeMap, HashMap, HashSet},
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
    /// The last at which their account data changed, or they read something.
    account_pos: AtomicI64,
    /// The last at which their memberships or invitations changed.
    member_pos: AtomicI64,
    /// The last at which a message to one of their devices came.
    inbox_pos: AtomicI64,
    /// The last at which the keys of somebody they share a room with changed.
    device_pos: AtomicI64,
    /// Counts typing in their rooms.
    typing: AtomicU64,
    bell: Bell,
    /// Their memberships, with what `member_pos` was when they were read.
    rooms: RwLock<Option<(i64, Arc<Vec<Member>>)>>,
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

    /// Whether their account data may have changed after `since`, or what they have read.
    #[must_use]
    pub fn account_changed_since(&self, since: i64) -> bool {
        since < self.from || self.account_pos.load(Ordering::Acquire) > since
    }

    /// Whether their memberships or invitations may have changed after `since`.
    #[must_use]
    pub fn membership_changed_since(&self, since: i64) -> bool {
        since < self.from || self.member_pos.load(Ordering::Acquire) > since
    }

    /// Whether messages to their devices may have come after `since`.
    #[must_use]
    pub fn inbox_changed_since(&self, since: i64) -> bool {
        since < self.from || self.inbox_pos.load(Ordering::Acquire) > since
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
    /// Positions of which it is not known yet whom they concern, each as often as it is looked up.
    unclear: Arc<Mutex<BTreeMap<i64, usize>>>,
    /// The position heard last: whoever is watched from now on hears all after it.
    heard: Arc<AtomicI64>,
    /// Rings at every change, for those who follow a room they are not in.
    told: Arc<Bell>,
    from: i64,
}

/// A position of which it is not known yet whom it concerns, as long as this is held.
struct Unclear {
    positions: Arc<Mutex<BTreeMap<i64, usize>>>,
    pos: i64,
}

impl Unclear {
    fn begin(watch: &Watch, pos: i64) -> Self {
        let positions = Arc::clone(&watch.unclear);
        *positions.lock().unwrap_or_else(PoisonError::into_inner).entry(pos).or_default() += 1;
        Self { positions, pos }
    }
}

impl Drop for Unclear {
    fn drop(&mut self) {
        let mut positions = self.positions.lock().unwrap_or_else(PoisonError::into_inner);
        if let std::collections::btree_map::Entry::Occupied(mut count) = positions.entry(self.pos) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

impl Watch {
    /// Listen to the news.
    #[must_use]
    pub fn start(cx: Context, timeline: Timeline) -> Self {
        let from = cx.notify.stable();
        let watch = Self {
            cx,
            timeline,
            entries: Arc::default(),
            receipts: Arc::default(),
            unclear: Arc::default(),
            heard: Arc::new(AtomicI64::new(from)),
            told: Arc::default(),
            from,
        };
        let listener = watch.clone();
        watch.cx.notify.on_change(move |change| listener.hear(change));
        let listener = watch.clone();
        watch.cx.notify.on_whisper(move |whisper| match whisper {
            Whisper::Typing(room_nid, _) => listener.each_in_room(*room_nid, 0, |entry| {
                entry.typing.fetch_add(1, Ordering::AcqRel);
                entry.bell.notify_waiters();
            }),
            Whisper::Forget(family, key) if family == FORGET_MEMBERSHIPS => {
                let entry = key.parse().ok().and_then(|user_nid: i64| listener.lock().get(&user_nid).cloned());
                if let Some(entry) = entry {
                    *entry.rooms.write().unwrap_or_else(PoisonError::into_inner) = None;
                }
            }
            Whisper::Missed => {
                for entry in listener.everybody() {
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
                from: self.heard.load(Ordering::Acquire),
                pos: AtomicI64::new(0),
                account_pos: AtomicI64::new(0),
                member_pos: AtomicI64::new(0),
                inbox_pos: AtomicI64::new(0),
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
        let member_pos = entry.member_pos.load(Ordering::Acquire);
        if let Some((read_at, rooms)) = known
            && read_at == member_pos
        {
            return Ok(rooms);
        }
        let rooms = members::of_user(&mut self.cx.store.read().await?, entry.user_nid).await?;
        let rooms = Arc::new(rooms);
        remember(entry, member_pos, &rooms);
        Ok(rooms)
    }

    /// The memberships of a user, and the changes of them in `since < pos <= until`: (room, position, member event before).
    /// `state_key_nid` is that of the user's member events.
    ///
    /// # Errors
    /// The database's.
    pub async fn changed_memberships(
        &self,
        entry: &Entry,
        state_key_nid: i64,
        since: i64,
        until: i64,
    ) -> Result<(Arc<Vec<Member>>, Vec<(i64, i64, Option<i64>)>)> {
        let member_pos = entry.member_pos.load(Ordering::Acquire);
        let mut tx = self.cx.store.read().await?;
        let rows = members::of_user_since(&mut tx, entry.user_nid, state_key_nid, since, until).await?;
        drop(tx);
        let changes = rows.iter().filter_map(|row| Some((row.member.room_nid, row.pos?, row.prev_event_nid))).collect();
        let mut rooms: Vec<Member> = rows.into_iter().map(|row| row.member).collect();
        rooms.dedup_by_key(|member| member.room_nid);
        let rooms = Arc::new(rooms);
        remember(entry, member_pos, &rooms);
        Ok((rooms, changes))
    }

    /// Whether nothing concerned the user after `since`, as far as the news have come.
    #[must_use]
    pub fn is_quiet(&self, entry: &Entry, since: i64) -> bool {
        !self.is_unclear(since) && entry.is_quiet_since(since)
    }

    /// Whether keys of people the user shares rooms with may have changed after `since`.
    #[must_use]
    pub fn devices_changed(&self, entry: &Entry, since: i64) -> bool {
        self.is_unclear(since) || entry.devices_changed_since(since)
    }

    /// Whether somebody is still looking up whom a position after `since` concerns.
    fn is_unclear(&self, since: i64) -> bool {
        let positions = self.unclear.lock().unwrap_or_else(PoisonError::into_inner);
        positions.last_key_value().is_some_and(|(pos, _)| *pos > since)
    }

    /// Whether any of these rooms may have new receipts after `since`.
    #[must_use]
    pub fn receipts_changed(&self, rooms: &[i64], since: i64) -> bool {
        let positions = self.receipts.lock().unwrap_or_else(PoisonError::into_inner);
        since < self.from || rooms.iter().any(|nid| positions.get(nid).is_some_and(|pos| *pos > since))
    }

    /// Ends at the next change, whomever it concerns.
    pub fn told(&self) -> tokio::sync::futures::Notified<'_> {
        self.told.notified()
    }

    /// The position heard last.
    #[must_use]
    pub fn heard(&self) -> i64 {
        self.heard.load(Ordering::Acquire)
    }

    fn hear(&self, change: &Change) {
        // Before anybody is looked for: who is not found now begins to watch after this.
        self.heard.fetch_max(change.last, Ordering::AcqRel);
        for room_nid in &change.receipt_rooms {
            self.receipts.lock().unwrap_or_else(PoisonError::into_inner).insert(*room_nid, change.last);
        }
        for (users, pos) in [
            (&change.users, (|entry| &entry.account_pos) as fn(&Entry) -> &AtomicI64),
            (&change.members, |entry| &entry.member_pos),
            (&change.inboxes, |entry| &entry.inbox_pos),
        ] {
            for user_nid in users {
                if let Some(entry) = self.lock().get(user_nid).cloned() {
                    pos(&entry).fetch_max(change.last, Ordering::AcqRel);
                    entry.bump(change.last);
                }
            }
        }
        let rooms = change.rooms.iter().map(|(nid, _)| nid);
        let member_rooms: HashSet<i64> = change.member_rooms.iter().copied().collect();
        for room_nid in rooms.chain(&change.receipt_rooms) {
            let pos = change.last;
            // Who came or went may be somebody whose keys concern the others now, or no longer.
            let has_members = member_rooms.contains(room_nid);
            self.each_in_room(*room_nid, pos, move |entry| {
                if has_members {
                    entry.device_pos.fetch_max(pos, Ordering::AcqRel);
                }
                entry.bump(pos);
            });
        }
        self.told.notify_waiters();
        if !change.device_users.is_empty() {
            let (watch, users, pos) = (self.clone(), change.device_users.clone(), change.last);
            let unclear = Unclear::begin(self, pos);
            tokio::spawn(async move {
                if let Err(error) = watch.tell_of_devices(&users, pos).await {
                    tracing::warn!(%error, "who shares rooms with a changed device is not known; everybody looks");
                    for entry in watch.everybody() {
                        entry.device_pos.fetch_max(pos, Ordering::AcqRel);
                        entry.bump(pos);
                    }
                }
                drop(unclear);
            });
        }
    }

    fn everybody(&self) -> Vec<Arc<Entry>> {
        self.lock().values().cloned().collect()
    }

    async fn tell_of_devices(&self, users: &[i64], pos: i64) -> Result<()> {
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

    /// Do something for each watched member of a room: at once when its members are in memory, else when they are. `pos` is the
    /// position it is about.
    fn each_in_room(&self, room_nid: i64, pos: i64, act: impl Fn(&Entry) + Send + Sync + 'static) {
        if let Some(inhabitants) = self.timeline.inhabitants_remembered(room_nid) {
            return self.each_of(&inhabitants.local, act);
        }
        if self.lock().is_empty() {
            return;
        }
        let (watch, unclear) = (self.clone(), Unclear::begin(self, pos));
        tokio::spawn(async move {
            match watch.timeline.now(room_nid).await {
                Ok(now) => watch.each_of(&now.inhabitants.local, act),
                Err(error) => {
                    tracing::warn!(%error, "who is in a room is not known; everybody looks");
                    watch.everybody().iter().for_each(|entry| act(entry));
                }
            }
            drop(unclear);
        });
    }

    fn each_of(&self, local: &[i64], act: impl Fn(&Entry)) {
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

/// Keep a user's memberships in memory, unless they changed since they were read.
fn remember(entry: &Entry, member_pos: i64, rooms: &Arc<Vec<Member>>) {
    let mut slot = entry.rooms.write().unwrap_or_else(PoisonError::into_inner);
    if entry.member_pos.load(Ordering::Acquire) == member_pos {
        *slot = Some((member_pos, Arc::clone(rooms)));
    }
}
