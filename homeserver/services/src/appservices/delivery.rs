//! Tells each application service what happens, in order, each piece once.
//!
//! A worker each. It is woken by the news, picks what concerns its application service from memory (or, when it is behind, from the
//! database), stores where the transaction ends, sends it until it is acknowledged, and goes on. A transaction that a
//! crash left unacknowledged is sent again with the same number and the same events. One write for a transaction; none when
//! nothing concerns the application service.
//!
//! With several instances one of them tells an application service; it holds a lease that another takes over when it ends.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use reqwest::Method;
use room::event::RoomIdShown;
use serde_json::{Value, json, value::RawValue};
use storage::appservices::{self as rows, Cursor};
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::{
    client::{Client, Question},
    ephemeral::{self, Moment},
    interest::Interest,
    registration::Registration,
    registry::Registry,
};
use crate::{
    Context, Result,
    clock::Randomness,
    notify::{Change, Whisper},
    timeline::{Timeline, events::Stored},
    view::View,
};

/// Events in one transaction.
const EVENTS_PER_TRANSACTION_MAX: usize = 100;
/// Events of the stream looked through at once by a worker that is behind.
const SCAN_MAX: i64 = 500;
/// Changes remembered for a worker that is busy; beyond it the database is asked.
const CHANGES_MAX: usize = 5_000;
/// Pause after the first failure; it doubles up to the configured one.
const RETRY_PAUSE_FIRST: Duration = Duration::from_secs(1);
/// Pause after the database failed.
const DATABASE_PAUSE: Duration = Duration::from_secs(5);
/// How long an instance may tell an application service without renewing its lease.
const LEASE: Duration = Duration::from_secs(30);
/// How often it renews, and how often the others look.
const LEASE_RENEWED: Duration = Duration::from_secs(10);
/// An idle worker stores how far it is after this time.
const STORE_AFTER: Duration = Duration::from_secs(2);
/// How far a worker that found nothing may be ahead of what it stored, in positions.
const UNSTORED_MAX: i64 = 10_000;
/// Letters of an instance's name.
const OWNER_LEN: usize = 16;

/// The workers.
#[derive(Debug)]
pub(super) struct Workers {
    mailboxes: HashMap<String, Arc<Mailbox>>,
    stopping: watch::Sender<bool>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Workers {
    /// One for each application service that has an address.
    pub(super) async fn start(
        cx: &Context,
        retry_pause_max: Duration,
        registry: &Registry,
        client: &Arc<Client>,
        timeline: &Timeline,
    ) -> Result<Self> {
        let mut workers =
            Self { mailboxes: HashMap::new(), stopping: watch::Sender::new(false), tasks: Vec::new().into() };
        // Not from the context: instances of a test share their seed, and two owners of one name would both hold the lease.
        let owner: Arc<str> = Randomness::system().letters(OWNER_LEN).into();
        for registration in registry.all().iter().filter(|registration| registration.url.is_some()) {
            let mailbox = Mailbox::listen(cx, registration.wants_ephemeral);
            let mut tx = cx.store.begin().await?;
            rows::add(&mut tx, &registration.id, cx.notify.stable(), cx.clock.now_ms().cast_signed()).await?;
            tx.commit().await?;
            workers.mailboxes.insert(registration.id.clone(), Arc::clone(&mailbox));
            let worker = Worker {
                cx: cx.clone(),
                timeline: timeline.clone(),
                view: View::new(cx.clone(), timeline.clone()),
                client: Arc::clone(client),
                interest: Interest::new(cx.clone(), timeline.clone(), Arc::clone(registration)),
                registration: Arc::clone(registration),
                mailbox,
                owner: Arc::clone(&owner),
                retry_pause_max,
                stopping: workers.stopping.subscribe(),
            };
            workers.tasks.lock().unwrap_or_else(PoisonError::into_inner).push(tokio::spawn(worker.work()));
        }
        Ok(workers)
    }

    /// Try now what waits for an application service.
    pub(super) fn wake(&self, id: &str) {
        if let Some(mailbox) = self.mailboxes.get(id) {
            mailbox.retry.notify_one();
        }
    }

    /// End all workers, after they stored where they are.
    pub(super) async fn stop(&self) {
        self.stopping.send_replace(true);
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            // A worker that panicked has been reported where that happened.
            let _ = task.await;
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stopping.send_replace(true);
    }
}

/// What a worker heard and has not looked at.
#[derive(Debug)]
struct Mailbox {
    heard: Mutex<Heard>,
    bell: Notify,
    retry: Notify,
}

#[derive(Debug, Default)]
struct Heard {
    /// Every change after this position is in `changes`.
    since: i64,
    /// Where the last change ends. The bell rings while others are still being told, so this may be ahead of
    /// `Notify::stable`; a worker that believed the latter would go back to sleep with news in the box.
    last: i64,
    changes: VecDeque<(i64, Vec<i64>)>,
    has_receipts: bool,
    moment: Moment,
}

impl Mailbox {
    fn listen(cx: &Context, wants_ephemeral: bool) -> Arc<Self> {
        let heard = Heard { since: cx.notify.stable(), ..Heard::default() };
        let mailbox = Arc::new(Self { heard: Mutex::new(heard), bell: Notify::new(), retry: Notify::new() });
        let weak = Arc::downgrade(&mailbox);
        cx.notify.on_change(move |change| {
            if let Some(mailbox) = weak.upgrade() {
                mailbox.hear(change, wants_ephemeral);
            }
        });
        if wants_ephemeral {
            let weak = Arc::downgrade(&mailbox);
            cx.notify.on_whisper(move |whisper| {
                let Some(mailbox) = weak.upgrade() else { return };
                match whisper {
                    Whisper::Typing(room_nid, user_nids) => mailbox.heard().moment.typing(*room_nid, user_nids),
                    Whisper::Presence(_, users) => mailbox.heard().moment.presence(users),
                    Whisper::Revoked(_) | Whisper::Forget(..) | Whisper::Outbox(_) | Whisper::Missed => return,
                }
                mailbox.bell.notify_one();
            });
        }
        // Changes told between reading the position and listening are not in the box.
        mailbox.heard().since = cx.notify.stable();
        mailbox
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, change: &Change, wants_ephemeral: bool) {
        let has_receipts = wants_ephemeral && !change.receipt_rooms.is_empty();
        let mut heard = self.heard();
        heard.last = change.last;
        heard.has_receipts |= has_receipts;
        if change.rooms.is_empty() && !has_receipts {
            return;
        }
        heard.changes.push_back((change.last, change.rooms.iter().map(|(nid, _)| *nid).collect()));
        if heard.changes.len() > CHANGES_MAX {
            heard.changes.clear();
            heard.since = change.last;
        }
        drop(heard);
        self.bell.notify_one();
    }

    /// The rooms with events in `since < pos <= until`; `None` when the box does not reach back so far.
    fn take(&self, since: i64, until: i64) -> Option<BTreeSet<i64>> {
        let mut heard = self.heard();
        let reaches = heard.since <= since;
        let mut rooms = BTreeSet::new();
        while heard.changes.front().is_some_and(|(last, _)| *last <= until) {
            let (last, changed) = heard.changes.pop_front().expect("there is a front");
            heard.since = heard.since.max(last);
            if last > since {
                rooms.extend(changed);
            }
        }
        reaches.then_some(rooms)
    }

    fn take_moment(&self) -> (Moment, bool) {
        let mut heard = self.heard();
        (std::mem::take(&mut heard.moment), std::mem::take(&mut heard.has_receipts))
    }
}

/// Events that concern the application service, and how far they reach.
#[derive(Default)]
struct Batch {
    until: i64,
    events: Vec<Box<RawValue>>,
    ephemeral: Vec<Value>,
}

struct Worker {
    cx: Context,
    timeline: Timeline,
    view: View,
    client: Arc<Client>,
    interest: Interest,
    registration: Arc<Registration>,
    mailbox: Arc<Mailbox>,
    owner: Arc<str>,
    retry_pause_max: Duration,
    stopping: watch::Receiver<bool>,
}

impl Worker {
    async fn work(mut self) {
        while !*self.stopping.borrow() {
            match self.tell().await {
                Ok(()) => {}
                Err(error) => {
                    tracing::warn!(appservice = self.registration.id, %error, "cannot tell an application service yet");
                    self.pause(DATABASE_PAUSE).await;
                }
            }
        }
    }

    /// Wait for the lease, then tell until the server stops or another instance has taken over.
    async fn tell(&mut self) -> Result<()> {
        if !self.lease().await? {
            self.pause(LEASE_RENEWED).await;
            return Ok(());
        }
        let mut tx = self.cx.store.read().await?;
        let Some(mut stored) = rows::cursor(&mut tx, &self.registration.id).await? else { return Ok(()) };
        drop(tx);
        if let Some(until) = stored.until {
            let batch = self.batch_until(stored.pos, until).await?;
            if !self.send(stored.txn, &batch).await? {
                return Ok(());
            }
            stored = Cursor { pos: until, until: None, txn: stored.txn };
            self.store(stored).await?;
        }
        let mut pos = stored.pos;
        while !*self.stopping.borrow() {
            let batch = self.next_batch(pos).await?;
            if batch.events.is_empty() && batch.ephemeral.is_empty() {
                let is_idle = batch.until == pos;
                pos = batch.until;
                if pos - stored.pos > UNSTORED_MAX {
                    stored.pos = pos;
                    self.store(stored).await?;
                }
                if is_idle && !self.idle(&mut stored, pos).await? {
                    return Ok(());
                }
                continue;
            }
            stored = Cursor { pos, until: Some(batch.until), txn: stored.txn + 1 };
            if !self.store(stored).await? || !self.send(stored.txn, &batch).await? {
                return Ok(());
            }
            pos = batch.until;
        }
        if stored.until == Some(pos) || stored.pos < pos {
            self.store(Cursor { pos, until: None, txn: stored.txn }).await?;
        }
        Ok(())
    }

    /// Wait for news. Stores how far we are once nothing came for a while. False when the lease is gone.
    async fn idle(&mut self, stored: &mut Cursor, pos: i64) -> Result<bool> {
        let has_unstored = stored.until.is_some();
        let embedded = self.cx.store.is_embedded();
        let wait = match (has_unstored, embedded) {
            (true, _) => Some(STORE_AFTER),
            (false, false) => Some(LEASE_RENEWED),
            (false, true) => None,
        };
        let bell = async {
            match wait {
                Some(wait) => timeout(wait, self.mailbox.bell.notified()).await.is_ok(),
                None => {
                    self.mailbox.bell.notified().await;
                    true
                }
            }
        };
        let has_rung = tokio::select! {
            has_rung = bell => has_rung,
            _ = self.stopping.wait_for(|stopping| *stopping) => return Ok(true),
        };
        if has_rung {
            return Ok(true);
        }
        if has_unstored {
            *stored = Cursor { pos, until: None, txn: stored.txn };
            return self.store(*stored).await;
        }
        self.lease().await
    }

    /// What concerns the application service after `since`.
    async fn next_batch(&self, since: i64) -> Result<Batch> {
        let stable = self.cx.notify.stable().max(self.mailbox.heard().last);
        let (moment, has_receipts) = self.mailbox.take_moment();
        let mut batch = Batch { until: since, ..Batch::default() };
        if stable > since {
            let found = match self.mailbox.take(since, stable) {
                Some(rooms) => self.remembered(&rooms, since, stable),
                None => None,
            };
            batch = match found {
                Some(events) => self.pick(events, stable).await?,
                None => self.scan(since, stable).await?,
            };
        }
        if self.registration.wants_ephemeral {
            if has_receipts || batch.until > since {
                let span = (since, batch.until);
                batch.ephemeral = ephemeral::receipts(&self.cx, &self.interest, &self.timeline, span).await?;
            }
            if !moment.is_empty() {
                batch.ephemeral.extend(moment.render(&self.cx, &self.interest, &self.timeline).await?);
            }
        }
        Ok(batch)
    }

    /// Events of rooms, in order, if memory has them all.
    fn remembered(&self, rooms: &BTreeSet<i64>, since: i64, until: i64) -> Option<Vec<(i64, Arc<Stored>)>> {
        let mut events = Vec::new();
        for room_nid in rooms {
            let recent = self.timeline.recent_since(*room_nid, since)?;
            events.extend(recent.iter().filter(|one| one.pos <= until).map(|one| (one.pos, Arc::clone(&one.event))));
        }
        events.sort_unstable_by_key(|(pos, _)| *pos);
        Some(events)
    }

    /// Those of `events` that concern it: as many as fit into a transaction, which reaches to the last of them or to `until`.
    async fn pick(&self, events: Vec<(i64, Arc<Stored>)>, until: i64) -> Result<Batch> {
        let mut batch = Batch { until, ..Batch::default() };
        for (pos, event) in events {
            if self.interest.has_event(&event).await? {
                batch.events.push(self.view.plain(&event, RoomIdShown::Yes)?);
                if batch.events.len() == EVENTS_PER_TRANSACTION_MAX {
                    batch.until = pos;
                    break;
                }
            }
        }
        Ok(batch)
    }

    /// Look through the stream in the database, [`SCAN_MAX`] events at a time, until something was found.
    async fn scan(&self, since: i64, until: i64) -> Result<Batch> {
        let mut batch = Batch { until: since, ..Batch::default() };
        while batch.until < until && batch.events.is_empty() {
            let rows =
                storage::timeline::between(&mut self.cx.store.read().await?, batch.until, until, SCAN_MAX).await?;
            let is_last = i64::try_from(rows.len()).unwrap_or(SCAN_MAX) < SCAN_MAX;
            let end = if is_last { until } else { rows.last().map_or(until, |row| row.pos) };
            let positions: Vec<i64> = rows.iter().map(|row| row.pos).collect();
            let events = self.timeline.events.read(rows.into_iter().map(|row| row.event).collect()).await?;
            batch = self.pick(positions.into_iter().zip(events).collect(), end).await?;
        }
        Ok(batch)
    }

    /// Exactly the events of a transaction that was begun before.
    async fn batch_until(&self, since: i64, until: i64) -> Result<Batch> {
        let mut all = Batch { until: since, ..Batch::default() };
        while all.until < until {
            let more = self.scan(all.until, until).await?;
            all.events.extend(more.events);
            all.until = more.until;
        }
        if self.registration.wants_ephemeral {
            let span = (since, until);
            all.ephemeral = ephemeral::receipts(&self.cx, &self.interest, &self.timeline, span).await?;
        }
        Ok(all)
    }

    /// Send a transaction until it is acknowledged. False when the server stops first or the lease is gone.
    async fn send(&mut self, txn: i64, batch: &Batch) -> Result<bool> {
        let mut body = json!({ "events": batch.events });
        if self.registration.wants_ephemeral {
            body["ephemeral"] = Value::Array(batch.ephemeral.clone());
        }
        let body = body.to_string();
        let mut pause = RETRY_PAUSE_FIRST;
        loop {
            let question = Question {
                method: Method::PUT,
                path: format!("/_matrix/app/v1/transactions/{txn}"),
                older_path: Some(format!("/transactions/{txn}")),
                body: Some(body.as_bytes()),
            };
            let answer = tokio::select! {
                answer = self.client.ask(&self.registration, &question) => answer,
                _ = self.stopping.wait_for(|stopping| *stopping) => return Ok(false),
            };
            let Err(fault) = answer else { return Ok(true) };
            if pause == RETRY_PAUSE_FIRST {
                tracing::warn!(appservice = self.registration.id, %fault, "an application service does not take its events; trying on");
            }
            self.pause(pause).await;
            pause = (pause * 2).min(self.retry_pause_max);
            if *self.stopping.borrow() || !self.lease().await? {
                return Ok(false);
            }
        }
    }

    /// Wait, but not longer than until somebody asks to try again or the server stops.
    async fn pause(&mut self, pause: Duration) {
        // Up to a quarter more, so that many do not come back in step.
        let spread_ms = u64::try_from(pause.as_millis() / 4).unwrap_or(u64::MAX);
        let pause = pause + Duration::from_millis(self.cx.randomness.below(spread_ms.max(1)));
        tokio::select! {
            () = sleep(pause) => {}
            () = self.mailbox.retry.notified() => {}
            _ = self.stopping.wait_for(|stopping| *stopping) => {}
        }
    }

    async fn lease(&self) -> Result<bool> {
        let now_ms = self.cx.clock.now_ms().cast_signed();
        // The embedded database has one process: whoever held the lease is gone.
        let free_before = if self.cx.store.is_embedded() { i64::MAX } else { now_ms };
        let until = now_ms.saturating_add(i64::try_from(LEASE.as_millis()).unwrap_or(i64::MAX));
        let mut tx = self.cx.store.begin().await?;
        let is_ours = rows::lease(&mut tx, &self.registration.id, &self.owner, free_before, until).await?;
        tx.commit().await?;
        Ok(is_ours)
    }

    async fn store(&self, cursor: Cursor) -> Result<bool> {
        let mut tx = self.cx.store.begin().await?;
        let is_ours = rows::store(&mut tx, &self.registration.id, &self.owner, cursor).await?;
        tx.commit().await?;
        Ok(is_ours)
    }
}
