//! The news: what each commit changed, told to everybody in the order of positions.
//!
//! A service that commits rows with positions calls [`Notify::publish`] with a [`Change`]. Changes of this process and of the
//! other instances (over a [`Bus`]) are put in order by position: a listener sees position n after all before it, so
//! [`Notify::stable`] is a token any reader may use. A hole that is not filled within [`HOLE_WAIT`] (a lost message, an
//! instance that died between its commit and its news) is repaired from the database; once a second the counter itself is
//! compared, so the last message may be lost too.
//!
//! News without a position (typing, presence, revoked tokens) travel as [`Whisper`]s: not ordered, and not repaired, for nobody
//! can ask for them again. But their loss is noticed ([`Whisper::Missed`]), and then nothing is kept on their word.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, OnceLock, PoisonError, RwLock,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use storage::{Span, Store, streams, timeline};
use tokio::sync::Notify as Bell;

use crate::Result;

pub mod valkey;

/// How long a missing position may stay missing before the database is asked.
const HOLE_WAIT: Duration = Duration::from_millis(50);
/// How often an instance compares its newest position with the database's, when others may write too.
const COMPARE_EVERY: Duration = Duration::from_secs(1);
/// Changes kept while they wait for an earlier one; beyond it the database is asked.
const PENDING_MAX: usize = 10_000;
/// Positions of which a repair names each event that changed; beyond it all events count as changed.
const REPAIRED_EVENTS_MAX: i64 = 5_000;

/// What one commit changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// First position taken.
    pub first: i64,
    /// Last position taken.
    pub last: i64,
    /// Rooms with new events in the timeline, each with the position of its newest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rooms: Vec<(i64, i64)>,
    /// Those of `rooms` whose current state changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub state_rooms: Vec<i64>,
    /// Those of `state_rooms` whose memberships changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub member_rooms: Vec<i64>,
    /// Rooms with new receipts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub receipt_rooms: Vec<i64>,
    /// Users with new account data, or who have read something.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<i64>,
    /// Users whose memberships or invitations changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<i64>,
    /// Users with new messages to their devices.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inboxes: Vec<i64>,
    /// Users whose devices or keys changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub device_users: Vec<i64>,
    /// Events that were stored before and changed (redacted, or kept as outliers and now in their place), with their flags now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<(i64, i64)>,
    /// There may be more such events than `events` says.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub any_event: bool,
}

impl Change {
    /// A change at these positions, still to be filled.
    #[must_use]
    pub fn at(span: Span) -> Self {
        Self { first: span.first, last: span.last, ..Self::default() }
    }
}

/// News without a position.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Whisper {
    /// Who types in a room changed: room, the users that type now.
    Typing(i64, Vec<i64>),
    /// Presence of users changed, or goes on: user, the presence content as JSON.
    Presence(Voucher, Vec<(i64, String)>),
    /// Access tokens that end now, by hash.
    Revoked(Vec<String>),
    /// A cached answer about this key must be asked again: family, key.
    Forget(String, String),
    /// Messages to devices wait for these servers.
    Outbox(Vec<String>),
    /// Whispers of other instances may have been lost: what is remembered on their word must be asked again. Never sent.
    Missed,
}

/// Who stands for a presence: the instance (by a random number) that sees the user, or the user's own server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Voucher {
    /// An instance of ours.
    Instance(u64),
    /// Another server.
    Server,
}

/// Carries news to the other instances. Delivery may fail, double or reorder; nothing relies on it but speed.
pub trait Bus: fmt::Debug + Send + Sync {
    /// Send to every other instance; must not wait.
    fn send(&self, message: &Message);
    /// Whether the others are heard at this moment.
    fn hears(&self) -> bool;
}

/// What travels on a [`Bus`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// A commit.
    Change(Change),
    /// News without position.
    Whisper(Whisper),
}

type ChangeListener = Box<dyn Fn(&Change) + Send + Sync>;
type WhisperListener = Box<dyn Fn(&Whisper) + Send + Sync>;

/// Tells everybody what changed. Cheap to clone.
#[derive(Clone)]
pub struct Notify(Arc<Inner>);

struct Inner {
    store: Store,
    /// Every position up to this one has been told.
    stable: AtomicI64,
    pending: Mutex<BTreeMap<i64, Change>>,
    listeners: RwLock<Vec<ChangeListener>>,
    whisper_listeners: RwLock<Vec<WhisperListener>>,
    bus: OnceLock<Box<dyn Bus>>,
    hole: Bell,
}

impl fmt::Debug for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notify").field("stable", &self.stable()).finish_non_exhaustive()
    }
}

impl Notify {
    /// News of `store`, beginning at its newest position.
    ///
    /// # Errors
    /// The database's.
    pub async fn start(store: Store) -> Result<Self> {
        let newest = timeline::newest(&mut store.read().await?).await?;
        let notify = Self(Arc::new(Inner {
            store,
            stable: AtomicI64::new(newest),
            pending: Mutex::default(),
            listeners: RwLock::default(),
            whisper_listeners: RwLock::default(),
            bus: OnceLock::new(),
            hole: Bell::new(),
        }));
        let weak = Arc::downgrade(&notify.0);
        tokio::spawn(async move {
            loop {
                let Some(inner) = weak.upgrade() else { return };
                let notify = Self(inner);
                if let Err(error) = notify.watch_for_holes().await {
                    tracing::warn!(%error, "news cannot be completed; trying again");
                }
            }
        });
        Ok(notify)
    }

    /// Connect the other instances. Called once, before the first request.
    pub fn connect(&self, bus: Box<dyn Bus>) {
        let _ = self.0.bus.set(bus);
    }

    /// Every position up to this one has been told to all listeners: the token of a sync that starts now.
    #[must_use]
    pub fn stable(&self) -> i64 {
        self.0.stable.load(Ordering::Acquire)
    }

    /// Be told of every change, in order. A listener must be quick and must not wait.
    pub fn on_change(&self, listener: impl Fn(&Change) + Send + Sync + 'static) {
        self.0.listeners.write().unwrap_or_else(PoisonError::into_inner).push(Box::new(listener));
    }

    /// Be told of every whisper. A listener must be quick and must not wait.
    pub fn on_whisper(&self, listener: impl Fn(&Whisper) + Send + Sync + 'static) {
        self.0.whisper_listeners.write().unwrap_or_else(PoisonError::into_inner).push(Box::new(listener));
    }

    /// Whether there may be other instances.
    #[must_use]
    pub fn has_others(&self) -> bool {
        self.0.bus.get().is_some()
    }

    /// Whether whispers of the other instances, if there are any, reach us now. While they do not, nothing may be remembered that
    /// a whisper would end.
    #[must_use]
    pub fn hears_others(&self) -> bool {
        self.0.bus.get().is_none_or(|bus| bus.hears())
    }

    /// Whispers of others may have been lost.
    pub fn missed(&self) {
        self.hear(&Whisper::Missed);
        // Changes that were lost are found by their positions; nobody need wait for the next comparison.
        self.0.hole.notify_one();
    }

    /// Tell what a commit of ours changed. A change that took no position is ignored.
    pub fn publish(&self, change: Change) {
        if change.first > change.last {
            return;
        }
        if let Some(bus) = self.0.bus.get() {
            bus.send(&Message::Change(change.clone()));
        }
        self.accept(change);
    }

    /// Tell news without a position, here and elsewhere.
    pub fn whisper(&self, whisper: &Whisper) {
        if let Some(bus) = self.0.bus.get() {
            bus.send(&Message::Whisper(whisper.clone()));
        }
        self.hear(whisper);
    }

    /// Take a message that came over the bus.
    pub fn receive(&self, message: Message) {
        match message {
            Message::Change(change) => self.accept(change),
            Message::Whisper(whisper) => self.hear(&whisper),
        }
    }

    fn pending(&self) -> std::sync::MutexGuard<'_, BTreeMap<i64, Change>> {
        self.0.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, whisper: &Whisper) {
        for listener in self.0.whisper_listeners.read().unwrap_or_else(PoisonError::into_inner).iter() {
            listener(whisper);
        }
    }

    /// Put a change in its place and tell all that are now in order. The lock is held while listeners run, so that they see
    /// one order.
    fn accept(&self, change: Change) {
        let mut pending = self.pending();
        if change.last <= self.stable() {
            return;
        }
        if pending.len() < PENDING_MAX {
            pending.insert(change.first, change);
        }
        let listeners = self.0.listeners.read().unwrap_or_else(PoisonError::into_inner);
        while let Some(first) = pending.first_entry() {
            let stable = self.stable();
            if *first.key() > stable + 1 {
                break;
            }
            let change = first.remove();
            if change.last <= stable {
                continue;
            }
            for listener in listeners.iter() {
                listener(&change);
            }
            self.0.stable.store(change.last, Ordering::Release);
        }
        if !pending.is_empty() {
            self.0.hole.notify_one();
        }
    }

    /// Wait for a sign of a hole (or, when others write too, for the next comparison), then mend it.
    async fn watch_for_holes(&self) -> Result<()> {
        let alone = self.0.bus.get().is_none() && self.0.store.is_embedded();
        let (every, may_be_behind) = if alone { (COMPARE_EVERY * 60, false) } else { (COMPARE_EVERY, true) };
        tokio::select! {
            () = self.0.hole.notified() => {}
            () = tokio::time::sleep(every) => {}
        }
        let has_hole = !self.pending().is_empty();
        if !has_hole && !may_be_behind {
            return Ok(());
        }
        let behind =
            if has_hole { self.stable() + 1 } else { timeline::newest(&mut self.0.store.read().await?).await? };
        if behind <= self.stable() {
            return Ok(());
        }
        // What is on its way arrives by itself.
        tokio::time::sleep(HOLE_WAIT).await;
        if behind > self.stable() { self.repair().await } else { Ok(()) }
    }

    /// Ask the database what happened after the last position told, and tell it.
    ///
    /// # Errors
    /// The database's.
    pub async fn repair(&self) -> Result<()> {
        let stable = self.stable();
        let mut tx = self.0.store.read().await?;
        let newest = timeline::newest(&mut tx).await?;
        if newest <= stable {
            return Ok(());
        }
        let rooms = timeline::changed_rooms(&mut tx, stable, newest).await?;
        let other = streams::changed(&mut tx, stable, newest).await?;
        let any_event = newest - stable > REPAIRED_EVENTS_MAX;
        let events = if any_event { Vec::new() } else { timeline::changed_events(&mut tx, stable, newest).await? };
        drop(tx);
        self.accept(Change {
            first: stable + 1,
            last: newest,
            state_rooms: rooms.iter().map(|(nid, _)| *nid).collect(),
            member_rooms: rooms.iter().map(|(nid, _)| *nid).collect(),
            rooms,
            receipt_rooms: other.receipt_rooms,
            users: other.users,
            members: other.members,
            inboxes: other.inboxes,
            device_users: other.device_users,
            events,
            any_event,
        });
        Ok(())
    }
}
