//! Presence: who is there, in memory alone. It never touches the database and never wakes a sleeping sync; a sync that answers
//! anyway takes along what changed since ([`Presence::changed`]).
//!
//! * A user of ours is what the most present of their devices is. A device is active when it sends something or says `online`,
//!   idle after [`Settings::idle_after`], gone [`Settings::offline_after`] after its last request.
//! * Changes are told to the other instances ([`Whisper::Presence`]) and to federation in batches: a change of state or status at
//!   the next round, but not within [`Settings::quiet`] of the user's last; mere activity at most once in
//!   [`Settings::coalesce`].
//! * Each instance knows its own devices and what the others told. An instance goes on telling of the users it sees every
//!   [`VOUCHED_EVERY`]; whom no instance has told of for [`VOUCHED_FOR`] has gone with the instance that saw them.
//!
//! Readers follow [`Presence::serial`], a count that is never behind the clock in milliseconds: so the count in a token of one
//! instance means the same to another, as far as their clocks agree.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use ruma::{OwnedDeviceId, UserId, presence::PresenceState};
use serde::{Deserialize, Serialize};
use storage::members;

use crate::{
    Context, Error, Result,
    accounts::User,
    notify::{Voucher, Whisper},
};

/// Users whose presence is remembered; beyond it, those longest unchanged are forgotten.
const USERS_MAX: usize = 200_000;
/// Devices of one user that count.
const DEVICES_PER_USER_MAX: usize = 32;
/// The longest status message, in bytes.
const STATUS_BYTES_MAX: usize = 2048;
/// How often devices are looked at and changes told.
const ROUND_EVERY: Duration = Duration::from_secs(1);
/// How often the other instances are told of users who are still there.
pub const VOUCHED_EVERY: Duration = Duration::from_secs(60);
/// How long the telling of another instance is believed.
pub const VOUCHED_FOR: Duration = Duration::from_secs(150);

/// How presence behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Off: nobody's presence is told or remembered.
    pub is_on: bool,
    /// Without activity for so long an online user is shown as unavailable.
    pub idle_after: Duration,
    /// A device whose last request was so long ago is gone; longer than a long poll.
    pub offline_after: Duration,
    /// Mere activity is told at most once in this time.
    pub coalesce: Duration,
    /// A user's changes of state are told at most once in this time.
    pub quiet: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            is_on: true,
            idle_after: Duration::from_secs(300),
            offline_after: Duration::from_secs(120),
            coalesce: Duration::from_secs(25),
            quiet: Duration::from_secs(1),
        }
    }
}

/// A user's presence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// `online`, `unavailable` or `offline`.
    pub presence: PresenceState,
    /// What the user says of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_msg: Option<String>,
    /// When the user last did something, milliseconds since 1970; 0 when not known.
    pub last_active_ms: u64,
    /// Whether they do something right now.
    pub currently_active: bool,
}

/// A presence as clients and servers are told it: times are relative to the telling.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// `online`, `unavailable` or `offline`.
    pub presence: PresenceState,
    /// What the user says of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_msg: Option<String>,
    /// Milliseconds since the user last did something, when that is known.
    #[serde(rename = "last_active_ago", skip_serializing_if = "Option::is_none")]
    pub active_ago_ms: Option<u64>,
    /// Whether they do something right now.
    pub currently_active: bool,
}

impl Seen {
    /// Whether anything was ever heard of the user.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.last_active_ms > 0 || self.presence != PresenceState::Offline || self.status_msg.is_some()
    }

    fn offline() -> Self {
        Self { presence: PresenceState::Offline, status_msg: None, last_active_ms: 0, currently_active: false }
    }
}

/// One device, as its requests show it.
#[derive(Debug, Clone)]
struct Device {
    wanted: PresenceState,
    last_sync_ms: u64,
    last_active_ms: u64,
}

#[derive(Debug)]
struct Entry {
    seen: Seen,
    /// Devices whose requests came to this process.
    devices: HashMap<Option<OwnedDeviceId>, Device>,
    /// Count at the last change that readers should learn of.
    serial: u64,
    /// Whether the others still have to be told.
    is_untold: bool,
    told_ms: u64,
    /// What another instance that sees the user says of them, and when it last did.
    vouched: Option<(PresenceState, u64)>,
    /// What the devices here say: all that this instance vouches for.
    own: PresenceState,
}

#[derive(Debug, Default)]
struct State {
    users: HashMap<i64, Entry>,
    serial: u64,
}

/// Users with what is seen of them.
type UsersSeen = Vec<(i64, Seen)>;
type LocalListener = Box<dyn Fn(&[(i64, Seen)]) + Send + Sync>;

struct Inner {
    cx: Context,
    settings: Settings,
    /// This instance, among those that vouch.
    own: Voucher,
    state: Mutex<State>,
    local: OnceLock<LocalListener>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presence").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Who is there. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Presence(Arc<Inner>);

impl Presence {
    /// On `cx`; listens to the other instances and looks at devices each round, as long as somebody holds it.
    #[must_use]
    pub fn new(cx: Context, settings: Settings) -> Self {
        let is_on = settings.is_on;
        let own = Voucher::Instance(cx.randomness.below(u64::MAX));
        let presence = Self(Arc::new(Inner { cx, settings, own, state: Mutex::default(), local: OnceLock::new() }));
        if !is_on {
            return presence;
        }
        let weak = Arc::downgrade(&presence.0);
        presence.0.cx.notify.on_whisper(move |whisper| {
            if let (Whisper::Presence(voucher, users), Some(inner)) = (whisper, weak.upgrade()) {
                Self(inner).hear(*voucher, users);
            }
        });
        let weak = Arc::downgrade(&presence.0);
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(ROUND_EVERY);
            loop {
                ticks.tick().await;
                let Some(inner) = weak.upgrade() else { return };
                Self(inner).round();
            }
        });
        presence
    }

    /// Be told of changes of our own users that this process saw first. Set once, by federation.
    pub fn on_local_change(&self, listener: impl Fn(&[(i64, Seen)]) + Send + Sync + 'static) {
        let _ = self.0.local.set(Box::new(listener));
    }

    /// True when presence is served at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.settings.is_on
    }

    /// `user` says how present they are.
    ///
    /// # Errors
    /// [`Error::InvalidParam`] when the status message is too long or the state is none of the three.
    pub fn set(&self, user: &User, presence: PresenceState, status_msg: Option<String>) -> Result<()> {
        if !is_known(&presence) {
            return Err(Error::InvalidParam("presence is online, unavailable or offline".to_owned()));
        }
        if status_msg.as_ref().is_some_and(|words| words.len() > STATUS_BYTES_MAX) {
            return Err(Error::InvalidParam(format!("a status message has at most {STATUS_BYTES_MAX} bytes")));
        }
        self.device(user, |device, now_ms| {
            device.last_sync_ms = now_ms;
            if presence == PresenceState::Online {
                device.last_active_ms = now_ms;
            }
            device.wanted = presence;
        });
        let now_ms = self.0.cx.clock.now_ms();
        let mut state = self.state();
        if let Some(entry) = state.users.get_mut(&user.nid) {
            let status_msg = status_msg.filter(|words| !words.is_empty());
            if entry.seen.status_msg != status_msg {
                entry.seen.status_msg = status_msg;
                state.changed(user.nid, now_ms);
            }
        }
        Ok(())
    }

    /// `user` syncs, with the presence their client asks for.
    pub fn synced(&self, user: &User, wanted: PresenceState) {
        if wanted == PresenceState::Offline || !is_known(&wanted) {
            return;
        }
        self.device(user, |device, now_ms| {
            if wanted == PresenceState::Online && device.last_sync_ms == 0 {
                device.last_active_ms = now_ms;
            }
            device.last_sync_ms = now_ms;
            device.wanted = wanted;
        });
    }

    /// `user` did something: sent a message, read one.
    pub fn active(&self, user: &User) {
        self.device(user, |device, now_ms| {
            device.last_active_ms = now_ms;
            device.last_sync_ms = device.last_sync_ms.max(now_ms);
            device.wanted = PresenceState::Online;
        });
    }

    /// The presence of a user of another server, as it told.
    pub fn receive(&self, user_nid: i64, seen: Seen) {
        if self.is_on() && is_known(&seen.presence) {
            let told = vec![(user_nid, serde_json::to_string(&seen).unwrap_or_default())];
            self.0.cx.notify.whisper(&Whisper::Presence(Voucher::Server, told));
        }
    }

    /// The presence of `user_id`, for `reader`: their own, or that of somebody they share a room with.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for anybody else, known or not.
    pub async fn seen_by(&self, reader: &User, user_id: &UserId) -> Result<Shown> {
        let user_nid = self.0.cx.numbers.user_if_known(user_id).await?;
        let mut tx = self.0.cx.store.read().await?;
        let shared = match user_nid {
            Some(nid) if nid == reader.nid => Some(nid),
            Some(nid) if members::shares_a_room(&mut tx, nid, reader.nid).await? => Some(nid),
            _ => None,
        };
        let nid = shared.ok_or_else(|| Error::forbidden("you do not share a room with this user"))?;
        Ok(self.show(self.of(nid)))
    }

    /// A presence as it is told at this moment.
    #[must_use]
    pub fn show(&self, seen: Seen) -> Shown {
        let now_ms = self.0.cx.clock.now_ms();
        Shown {
            presence: seen.presence,
            status_msg: seen.status_msg,
            active_ago_ms: (seen.last_active_ms > 0).then(|| now_ms.saturating_sub(seen.last_active_ms)),
            currently_active: seen.currently_active,
        }
    }

    /// A user's presence now.
    #[must_use]
    pub fn of(&self, user_nid: i64) -> Seen {
        self.state().users.get(&user_nid).map_or_else(Seen::offline, |entry| entry.seen.clone())
    }

    /// Those of `is_visible` users that changed after the count was `since`, and the count now.
    pub fn changed(&self, since: u64, is_visible: impl Fn(i64) -> bool) -> (Vec<(i64, Seen)>, u64) {
        let state = self.state();
        // A count from before this process began says nothing: everything is new.
        let since = if since > state.serial { 0 } else { since };
        if since == state.serial {
            return (Vec::new(), since);
        }
        let changed = state
            .users
            .iter()
            .filter(|(user_nid, entry)| entry.serial > since && is_visible(**user_nid))
            .map(|(user_nid, entry)| (*user_nid, entry.seen.clone()))
            .collect();
        (changed, state.serial)
    }

    /// Count of the last change.
    #[must_use]
    pub fn serial(&self) -> u64 {
        self.state().serial
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn device(&self, user: &User, change: impl FnOnce(&mut Device, u64)) {
        if !self.is_on() {
            return;
        }
        let now_ms = self.0.cx.clock.now_ms();
        let mut state = self.state();
        state.make_room();
        let entry = state.users.entry(user.nid).or_insert_with(Entry::new);
        if !entry.devices.contains_key(&user.device_id) && entry.devices.len() >= DEVICES_PER_USER_MAX {
            return;
        }
        let device = entry.devices.entry(user.device_id.clone()).or_insert(Device {
            wanted: PresenceState::Online,
            last_sync_ms: 0,
            last_active_ms: 0,
        });
        change(device, now_ms);
        state.look_at(user.nid, now_ms, &self.0.settings);
    }

    /// Look at all devices, then tell what changed. Runs by itself once a second.
    pub fn round(&self) {
        let now_ms = self.0.cx.clock.now_ms();
        let (told, whispered) = self.state().round(now_ms, &self.0.settings);
        if let Some(listener) = self.0.local.get().filter(|_| !told.is_empty()) {
            listener(&told);
        }
        if whispered.is_empty() {
            return;
        }
        let whispered =
            whispered.into_iter().map(|(nid, seen)| (nid, serde_json::to_string(&seen).unwrap_or_default())).collect();
        self.0.cx.notify.whisper(&Whisper::Presence(self.0.own, whispered));
    }

    /// Take what an instance told; this one hears itself too, and then nothing is new.
    fn hear(&self, voucher: Voucher, users: &[(i64, String)]) {
        let now_ms = self.0.cx.clock.now_ms();
        let mut state = self.state();
        for (user_nid, told) in users {
            let Ok(seen) = serde_json::from_str::<Seen>(told) else { continue };
            state.make_room();
            let entry = state.users.entry(*user_nid).or_insert_with(Entry::new);
            if voucher != self.0.own {
                let is_seen = voucher != Voucher::Server && seen.presence != PresenceState::Offline;
                entry.vouched = is_seen.then(|| (seen.presence.clone(), now_ms));
            }
            if entry.seen == seen || voucher == self.0.own {
                continue;
            }
            // An instance that sees the user itself knows better than one that lost sight of them, and says so.
            if !entry.devices.is_empty() && rank(&seen.presence) < rank(&entry.seen.presence) {
                entry.is_untold |= entry.is_best_here();
                continue;
            }
            entry.seen = seen;
            state.count(*user_nid, now_ms);
        }
    }
}

impl Entry {
    fn new() -> Self {
        Self {
            seen: Seen::offline(),
            devices: HashMap::new(),
            serial: 0,
            is_untold: false,
            told_ms: 0,
            vouched: None,
            own: PresenceState::Offline,
        }
    }

    /// Whether nobody sees more of the user than this instance does.
    fn is_best_here(&self) -> bool {
        !self.devices.is_empty() && rank(&self.own) >= rank(&self.seen.presence)
    }

    /// What this instance vouches for.
    fn own(&self) -> Seen {
        let currently_active = self.seen.currently_active && self.own == PresenceState::Online;
        Seen { presence: self.own.clone(), currently_active, ..self.seen.clone() }
    }
}

impl State {
    /// Readers should learn of a user's change.
    fn count(&mut self, user_nid: i64, now_ms: u64) {
        self.serial = now_ms.max(self.serial + 1);
        if let Some(entry) = self.users.get_mut(&user_nid) {
            entry.serial = self.serial;
        }
    }

    /// Readers and the other instances should learn of a user's change.
    fn changed(&mut self, user_nid: i64, now_ms: u64) {
        self.count(user_nid, now_ms);
        if let Some(entry) = self.users.get_mut(&user_nid) {
            entry.is_untold = true;
        }
    }

    /// Look at everybody: who changed, as all see them; and whom the other instances are told of, as this one sees them.
    fn round(&mut self, now_ms: u64, settings: &Settings) -> (UsersSeen, UsersSeen) {
        let looked_at: Vec<i64> = self
            .users
            .iter()
            .filter(|(_, e)| !e.devices.is_empty() || e.vouched.is_some())
            .map(|(nid, _)| *nid)
            .collect();
        for user_nid in looked_at {
            self.look_at(user_nid, now_ms, settings);
        }
        let (mut told, mut whispered) = (Vec::new(), Vec::new());
        for (user_nid, entry) in &mut self.users {
            let is_due = entry.is_untold && now_ms >= entry.told_ms + ms(settings.quiet);
            if is_due {
                told.push((*user_nid, entry.seen.clone()));
            }
            if is_due || entry.is_best_here() && now_ms >= entry.told_ms + ms(VOUCHED_EVERY) {
                whispered.push((*user_nid, entry.own()));
                entry.told_ms = now_ms;
                entry.is_untold &= !is_due;
            }
        }
        (told, whispered)
    }

    /// Derive a user's presence from their devices; forget devices that are gone.
    fn look_at(&mut self, user_nid: i64, now_ms: u64, settings: &Settings) {
        let Some(entry) = self.users.get_mut(&user_nid) else { return };
        let idle_ms = ms(settings.idle_after);
        let last_active_ms =
            entry.devices.values().map(|d| d.last_active_ms).max().unwrap_or(0).max(entry.seen.last_active_ms);
        entry.devices.retain(|_, device| now_ms < device.last_sync_ms + ms(settings.offline_after));
        entry.vouched.take_if(|(_, told_ms)| now_ms >= *told_ms + ms(VOUCHED_FOR));
        if entry.devices.is_empty() && entry.vouched.is_some() {
            // Gone from here, and seen by another instance: that one tells.
            entry.own = PresenceState::Offline;
            return;
        }
        entry.own = entry
            .devices
            .values()
            .map(|device| match &device.wanted {
                PresenceState::Online if now_ms >= last_active_ms + idle_ms => PresenceState::Unavailable,
                wanted => wanted.clone(),
            })
            .max_by_key(rank)
            .unwrap_or(PresenceState::Offline);
        let vouched = entry.vouched.iter().map(|(presence, _)| presence);
        let presence = vouched.chain([&entry.own]).max_by_key(|presence| rank(presence)).cloned();
        let presence = presence.unwrap_or(PresenceState::Offline);
        let currently_active = presence == PresenceState::Online && now_ms < last_active_ms + ms(settings.coalesce) * 2;
        let is_other = presence != entry.seen.presence || currently_active != entry.seen.currently_active;
        // While somebody counts as active, the exact time interests nobody.
        let is_later = last_active_ms >= entry.seen.last_active_ms + ms(settings.coalesce) && !currently_active;
        entry.seen.presence = presence;
        entry.seen.currently_active = currently_active;
        entry.seen.last_active_ms = last_active_ms;
        if is_other || is_later {
            self.changed(user_nid, now_ms);
        }
    }

    /// Keep the memory bounded: forget the users longest unchanged, a quarter at a time.
    fn make_room(&mut self) {
        if self.users.len() < USERS_MAX {
            return;
        }
        let mut serials: Vec<u64> = self.users.values().map(|entry| entry.serial).collect();
        let quarter = serials.len() / 4;
        let (_, limit, _) = serials.select_nth_unstable(quarter);
        let limit = *limit;
        self.users.retain(|_, entry| entry.serial > limit);
    }
}

fn is_known(presence: &PresenceState) -> bool {
    matches!(presence, PresenceState::Online | PresenceState::Unavailable | PresenceState::Offline)
}

fn rank(presence: &PresenceState) -> u8 {
    match presence {
        PresenceState::Online => 2,
        PresenceState::Unavailable => 1,
        _ => 0,
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
