//! Telling the other servers: one cursor a destination over the one stream, nothing for each event and server.
//!
//! The dispatcher of a process walks the stream once and hands what concerns other servers (events of ours, receipts, changes of
//! devices) to the destinations in memory; each destination with something to send has a task ([`destination`]). What a
//! destination has been told is its cursor, written a moment after; a crash makes us repeat, never forget. While a destination
//! does not answer, only the newest event of each room is noted for it (`destination_rooms`): it asks for the rest itself.
//!
//! Several instances: each delivers to the shares of the servers it holds a lease of. Typing and presence are sent by the process
//! that saw them, whoever holds the lease.
//!
//! Not here: what an EDU says (`units`), whether a server answers ([`super::health`]).

mod destination;
mod dispatch;
mod units;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError, atomic::AtomicI64},
    time::Duration,
};

use ruma::{OwnedServerName, ServerName};
use storage::destinations;
use tokio::sync::{Notify as Bell, mpsc};

use self::destination::Destination;
use super::client::Client;
use crate::{
    Context, Result,
    keys::Keys,
    notify::{Notify, Whisper},
    presence::{Presence, Seen},
    receipts::Receipts,
    timeline::Timeline,
    to_device::Outbox,
    typing::Typing,
};

/// Parts the servers are divided into, each delivered to by one instance.
const SHARES: u64 = 16;
/// How long an instance holds a share, and how often it says so.
const LEASE_MS: u64 = 20_000;
const LEASE_EVERY: Duration = Duration::from_secs(5);
/// How often cursors are written.
const FLUSH_EVERY: Duration = Duration::from_secs(1);
/// Typing and presence that wait for the dispatcher; more are lost.
const EPHEMERAL_MAX: usize = 1_000;
/// The row of `destinations` that says how far the dispatcher has come.
const DISPATCHER: &str = "";

/// Rung when messages to devices wait for other servers, in all instances. Made before all that ring it.
#[derive(Debug, Clone)]
pub struct Doorbell {
    is_enabled: bool,
    notify: Notify,
    servers: Arc<Mutex<BTreeSet<OwnedServerName>>>,
    bell: Arc<Bell>,
}

impl Doorbell {
    /// Hears the other instances through `notify`; rings for nobody while federation is off.
    #[must_use]
    pub fn new(notify: Notify, is_enabled: bool) -> Self {
        let doorbell = Self { is_enabled, notify, servers: Arc::default(), bell: Arc::default() };
        let (servers, bell) = (Arc::downgrade(&doorbell.servers), Arc::downgrade(&doorbell.bell));
        doorbell.notify.on_whisper(move |whisper| {
            let Whisper::Outbox(names) = whisper else { return };
            if let (Some(servers), Some(bell)) = (servers.upgrade(), bell.upgrade()) {
                let names = names.iter().filter_map(|name| name.parse().ok());
                servers.lock().unwrap_or_else(PoisonError::into_inner).extend(names);
                bell.notify_one();
            }
        });
        doorbell
    }

    fn take(&self) -> BTreeSet<OwnedServerName> {
        std::mem::take(&mut *self.servers.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Outbox for Doorbell {
    fn accepts(&self, _: &ServerName) -> bool {
        self.is_enabled
    }

    fn ring(&self, servers: &[OwnedServerName]) {
        // Whoever delivers to them, here or elsewhere, hears it.
        self.notify.whisper(&Whisper::Outbox(servers.iter().map(ToString::to_string).collect()));
    }
}

/// Where what is told comes from.
#[derive(Debug, Clone)]
pub struct Sources {
    /// Events.
    pub timeline: Timeline,
    /// Changes of devices.
    pub keys: Keys,
    /// Receipts.
    pub receipts: Receipts,
    /// Who types.
    pub typing: Typing,
    /// Who is there.
    pub presence: Presence,
}

/// Tells the other servers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Queue(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    cx: Context,
    client: Client,
    sources: Sources,
    doorbell: Doorbell,
    /// This process among those that deliver.
    owner: String,
    destinations: Mutex<HashMap<OwnedServerName, Arc<Destination>>>,
    news: Mutex<News>,
    bell: Bell,
    progress: Mutex<Progress>,
    /// Up to where idle destinations' cursors were moved.
    flushed: AtomicI64,
}

/// What changed since the dispatcher last looked.
#[derive(Debug, Default)]
struct News {
    until: i64,
    rooms: HashSet<i64>,
    receipt_rooms: HashSet<i64>,
    has_devices: bool,
    has_state: bool,
}

#[derive(Debug, Default)]
struct Progress {
    /// Everything up to here has been handed to the destinations.
    dispatched: i64,
    /// Shares this process delivers to.
    shares: BTreeSet<u64>,
    /// Number of the next transaction.
    transaction: u64,
}

/// What is told without a position.
#[derive(Debug)]
enum Ephemeral {
    Typing { room_nid: i64, user_nid: i64, is_typing: bool },
    Presence(Vec<(i64, Seen)>),
}

impl Queue {
    /// Begin where the last run ended.
    ///
    /// # Errors
    /// The database's.
    pub async fn start(cx: Context, client: Client, sources: Sources, doorbell: Doorbell) -> Result<Self> {
        let owner = format!("{}-{}", cx.clock.now_ms(), cx.randomness.letters(8));
        let (sender, ephemeral) = mpsc::channel(EPHEMERAL_MAX);
        let queue = Self(Arc::new(Inner {
            cx,
            client,
            sources,
            doorbell,
            owner,
            destinations: Mutex::default(),
            news: Mutex::default(),
            bell: Bell::new(),
            progress: Mutex::default(),
            flushed: AtomicI64::new(0),
        }));
        if queue.0.doorbell.is_enabled {
            queue.listen(sender);
            queue.take_shares().await?;
            queue.run(ephemeral);
        }
        Ok(queue)
    }

    fn progress(&self) -> std::sync::MutexGuard<'_, Progress> {
        self.0.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listen(&self, sender: mpsc::Sender<Ephemeral>) {
        let weak = Arc::downgrade(&self.0);
        self.0.cx.notify.on_change(move |change| {
            let Some(inner) = weak.upgrade() else { return };
            let mut news = inner.news.lock().unwrap_or_else(PoisonError::into_inner);
            news.until = news.until.max(change.last);
            news.rooms.extend(change.rooms.iter().map(|(nid, _)| *nid));
            news.receipt_rooms.extend(&change.receipt_rooms);
            news.has_devices |= !change.device_users.is_empty();
            news.has_state |= !change.state_rooms.is_empty();
            inner.bell.notify_one();
        });
        let typing = sender.clone();
        self.0.sources.typing.on_local_change(move |room_nid, user_nid, is_typing| {
            let _ = typing.try_send(Ephemeral::Typing { room_nid, user_nid, is_typing });
        });
        self.0.sources.presence.on_local_change(move |seen| {
            let _ = sender.try_send(Ephemeral::Presence(seen.to_vec()));
        });
    }

    /// The dispatcher.
    fn run(&self, mut ephemeral: mpsc::Receiver<Ephemeral>) {
        let weak = Arc::downgrade(&self.0);
        let doorbell = self.0.doorbell.clone();
        let mut recoveries = self.0.client.health().recoveries();
        let is_alone = self.0.cx.store.is_embedded();
        tokio::spawn(async move {
            let mut flush = tokio::time::interval(FLUSH_EVERY);
            flush.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            let mut lease = tokio::time::interval(LEASE_EVERY);
            lease.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                let Some(inner) = weak.upgrade() else { return };
                let queue = Self(inner);
                let done = tokio::select! {
                    () = queue.0.bell.notified() => queue.dispatch_news().await,
                    () = doorbell.bell.notified() => queue.wake(&doorbell.take()).await,
                    Some(told) = ephemeral.recv() => queue.dispatch_ephemeral(told).await,
                    Ok(()) = recoveries.changed() => { queue.wake_all(); Ok(()) }
                    _ = flush.tick() => queue.flush().await,
                    _ = lease.tick(), if !is_alone => queue.look_after_shares().await,
                };
                if let Err(error) = done {
                    tracing::warn!(%error, "the other servers are not told of everything; trying again");
                    queue.0.bell.notify_one();
                    drop(queue);
                    tokio::time::sleep(FLUSH_EVERY).await;
                }
            }
        });
    }

    /// Take or keep the shares nobody else holds; of those new to us, begin where their cursors stand.
    async fn take_shares(&self) -> Result<()> {
        let mut held = BTreeSet::new();
        if self.0.cx.store.is_embedded() {
            held.extend(0..SHARES);
        } else {
            let now_ms = self.0.cx.clock.now_ms();
            let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
            let shares: Vec<i64> = (0..SHARES).map(number).collect();
            let until = number(now_ms + LEASE_MS);
            let mut tx = self.0.cx.store.begin().await?;
            let taken = destinations::lease(&mut tx, &shares, &self.0.owner, until, number(now_ms)).await?;
            held.extend(taken.into_iter().filter_map(|share| u64::try_from(share).ok()));
            tx.commit().await?;
        }
        let gained: BTreeSet<u64> = {
            let mut progress = self.progress();
            let gained = held.difference(&progress.shares).copied().collect();
            progress.shares = held;
            gained
        };
        if gained.is_empty() { Ok(()) } else { self.resume(&gained).await }
    }

    /// Keep our shares, and see to messages to devices of which another instance told nobody.
    async fn look_after_shares(&self) -> Result<()> {
        self.take_shares().await?;
        let waiting = storage::to_device::queued_servers(&mut self.0.cx.store.read().await?).await?;
        let names = self.0.cx.numbers.server_names(&waiting).await?;
        self.wake(&names.values().filter_map(|name| name.parse().ok()).collect()).await
    }

    /// Whether this process delivers to `server`.
    fn delivers_to(&self, server: &ServerName) -> bool {
        self.progress().shares.contains(&share_of(server))
    }

    /// The destination, if it is in memory.
    fn known(&self, server: &ServerName) -> Option<Arc<Destination>> {
        self.0.destinations.lock().unwrap_or_else(PoisonError::into_inner).get(server).cloned()
    }

    /// Have the tasks of those of these servers that are ours look for messages to devices.
    async fn wake(&self, servers: &BTreeSet<OwnedServerName>) -> Result<()> {
        for server in servers.iter().filter(|server| self.delivers_to(server)) {
            let destination = self.destination(server).await?;
            destination.has_messages();
            self.work(&destination);
        }
        Ok(())
    }

    /// Some server came back: those that pause look whether it is theirs.
    fn wake_all(&self) {
        for destination in self.0.destinations.lock().unwrap_or_else(PoisonError::into_inner).values() {
            destination.ring();
        }
    }
}

/// FNV-1a: the same in every process and version.
fn share_of(server: &ServerName) -> u64 {
    let hash = server
        .as_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    hash % SHARES
}
