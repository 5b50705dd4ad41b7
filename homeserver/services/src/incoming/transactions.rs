//! Transactions, and the workers that judge the events they brought.

use std::{collections::BTreeMap, panic::AssertUnwindSafe, sync::PoisonError, time::Duration};

use futures_util::FutureExt as _;
use room::{Pdu, auth::facts, event::kind, graph};
use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, RoomId, ServerName};
use serde::Deserialize;
use serde_json::value::RawValue;
use storage::incoming::{self, Waiting};

use super::{How, Incoming, Room, Taken};
use crate::{
    Error, Result,
    federation::{EDUS_PER_TRANSACTION_MAX, PDUS_PER_TRANSACTION_MAX},
    timeline::now::RoomNow,
};

/// Events one worker takes at a time.
const BATCH_MAX: i64 = 50;
/// Events of one server that may wait; beyond it the server itself waits.
const WAITING_PER_SERVER_MAX: usize = 1_000;
/// How long it waits at most before it is told to come again.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// How long a transaction's answer is remembered.
const ANSWERS_KEPT_MS: u64 = 24 * 3_600_000;
/// How often events are looked for that another instance left behind, and how old those must be.
const ORPHANS_EVERY: Duration = Duration::from_secs(60);
/// Pause of a worker after our own database failed.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(5);

/// What became of each event of a transaction; an error in words for those we did not take.
pub type Outcomes = BTreeMap<OwnedEventId, Result<(), String>>;

impl Incoming {
    /// A transaction of `origin`. When this returns its events wait safely and its ephemeral units have been delivered; sending it
    /// again changes nothing.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a transaction that is too long; [`Error::Limited`] when too many events of this server wait; the
    /// database's.
    pub async fn transaction(
        &self,
        origin: &ServerName,
        txn_id: &str,
        pdus: &[Box<RawValue>],
        edus: &[Box<RawValue>],
    ) -> Result<Outcomes> {
        if pdus.len() > PDUS_PER_TRANSACTION_MAX || edus.len() > EDUS_PER_TRANSACTION_MAX {
            return Err(Error::invalid(format!(
                "a transaction has at most {PDUS_PER_TRANSACTION_MAX} events and {EDUS_PER_TRANSACTION_MAX} ephemeral units"
            )));
        }
        let turn = self.0.turns.of(&origin.to_owned());
        let _turn = turn.lock().await;
        let store = &self.0.cx.store;
        if let Some(answer) = incoming::answer(&mut store.read().await?, origin.as_str(), txn_id).await? {
            return read_answer(&answer);
        }
        self.wait_for_room(origin).await?;
        let mut outcomes = Outcomes::new();
        let mut staged = Vec::with_capacity(pdus.len());
        for pdu in pdus {
            let Some((event_id, outcome)) = self.admit(origin, pdu).await? else { continue };
            match outcome {
                Ok(waiting) => {
                    staged.push(waiting);
                    outcomes.insert(event_id, Ok(()));
                }
                Err(problem) => drop(outcomes.insert(event_id, Err(problem))),
            }
        }
        for edu in edus {
            self.receive_edu(origin, edu).await?;
        }
        let answer = serde_json::to_string(
            &outcomes.iter().map(|(id, outcome)| (id, outcome.as_ref().err())).collect::<BTreeMap<_, _>>(),
        )
        .map_err(Error::internal)?;
        let mut tx = store.begin().await?;
        for waiting in &staged {
            incoming::stage(&mut tx, waiting).await?;
        }
        incoming::answered(&mut tx, origin.as_str(), txn_id, self.now(), &answer).await?;
        tx.commit().await?;
        for waiting in staged {
            self.count(origin, 1);
            if let Ok(room_id) = OwnedRoomId::try_from(waiting.room_id) {
                self.work(room_id);
            }
        }
        Ok(outcomes)
    }

    fn now(&self) -> i64 {
        i64::try_from(self.0.cx.clock.now_ms()).unwrap_or(i64::MAX)
    }

    /// Whether an event of a transaction may wait to be judged. `None` when it cannot even be named.
    async fn admit(
        &self,
        origin: &ServerName,
        json: &RawValue,
    ) -> Result<Option<(OwnedEventId, Result<Waiting, String>)>> {
        #[derive(Deserialize)]
        struct Place {
            room_id: OwnedRoomId,
        }
        let Ok(Place { room_id }) = serde_json::from_str(json.get()) else { return Ok(None) };
        let now = match self.0.timeline.room(&room_id).await {
            Ok(now) => Some(now),
            Err(Error::NotFound(_)) => None,
            Err(error) => return Err(error),
        };
        let rules = match &now {
            Some(now) => now.rules,
            None => match self.ended_by(&room_id, json.get()).await? {
                Some((_, rules)) => rules,
                None => return Ok(None),
            },
        };
        let event = match Pdu::from_remote(json.get().as_bytes(), rules) {
            Ok(event) => event,
            Err(problem) => {
                tracing::debug!(%origin, room = %room_id, %problem, "an event is not one");
                return Ok(None);
            }
        };
        let event_id = event.event_id().to_owned();
        if let Some(now) = now
            && !self.is_admitted(&now, origin).await?
        {
            return Ok(Some((event_id, Err("the room's access list does not let this server in".to_owned()))));
        }
        let waiting = Waiting {
            room_id: room_id.into(),
            event_id: event_id.to_string(),
            origin: origin.to_string(),
            at: self.now(),
            body: json.get().to_owned(),
        };
        Ok(Some((event_id, Ok(waiting))))
    }

    /// Whether the room's access list lets `server` take part.
    ///
    /// # Errors
    /// The database's.
    pub async fn is_admitted(&self, now: &RoomNow, server: &ServerName) -> Result<bool> {
        let list = self.0.timeline.state_event(now, kind::SERVER_ACL, "").await?;
        Ok(facts::server_is_allowed(list.as_ref().map(|event| &*event.pdu), server))
    }

    async fn wait_for_room(&self, origin: &ServerName) -> Result<()> {
        let waited = tokio::time::timeout(WAIT_MAX, async {
            loop {
                let judged = self.0.judged.notified();
                tokio::pin!(judged);
                judged.as_mut().enable();
                if self.waiting_of(origin) < WAITING_PER_SERVER_MAX {
                    return;
                }
                judged.await;
            }
        });
        waited.await.map_err(|_| Error::Limited { retry_after: WAIT_MAX })
    }

    fn waiting_of(&self, origin: &ServerName) -> usize {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).get(origin).copied().unwrap_or(0)
    }

    fn count(&self, origin: &ServerName, by: isize) {
        let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let count = waiting.entry(origin.to_owned()).or_default();
        *count = count.saturating_add_signed(by);
        if *count == 0 {
            waiting.remove(origin);
        }
    }

    /// See that the room has a worker.
    fn work(&self, room_id: OwnedRoomId) {
        let Some(at_work) = AtWork::begin(self, &room_id) else { return };
        let incoming = self.clone();
        tokio::spawn(async move {
            loop {
                match incoming.work_once(&room_id).await {
                    Ok(true) => {}
                    Ok(false) => {
                        drop(at_work);
                        // What came in between found a worker that was about to leave.
                        let store = &incoming.0.cx.store;
                        let left = async { incoming::waiting(&mut store.read().await?, room_id.as_str(), 1).await };
                        if left.await.is_ok_and(|left| !left.is_empty()) {
                            incoming.work(room_id);
                        }
                        return;
                    }
                    Err(error) => {
                        tracing::error!(room = %room_id, %error, "events that came cannot be judged now");
                        tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
                    }
                }
            }
        });
    }

    /// Judge a batch of a room's events. False when none wait.
    async fn work_once(&self, room_id: &RoomId) -> Result<bool> {
        let store = &self.0.cx.store;
        let waiting = incoming::waiting(&mut store.read().await?, room_id.as_str(), BATCH_MAX).await?;
        if waiting.is_empty() {
            return Ok(false);
        }
        let _permit = self.0.room_permits.acquire().await.map_err(|_| Error::Stopping)?;
        self.judge_whatever_happens(room_id, &waiting).await?;
        let mut tx = store.begin().await?;
        for event in &waiting {
            incoming::judged(&mut tx, &event.room_id, &event.event_id).await?;
        }
        tx.commit().await?;
        for event in &waiting {
            if let Ok(origin) = <&ServerName>::try_from(event.origin.as_str()) {
                self.count(origin, -1);
            }
        }
        self.0.judged.notify_waiters();
        Ok(true)
    }

    /// Judge events that wait. A fault of ours that shows with one of them, a panic, costs that event and no other: those that were
    /// judged before it are known the second time.
    async fn judge_whatever_happens(&self, room_id: &RoomId, waiting: &[Waiting]) -> Result<()> {
        if let Some(judged) = unless_it_panics(self.judge_waiting(room_id, waiting)).await {
            return judged;
        }
        for event in waiting {
            match unless_it_panics(self.judge_waiting(room_id, std::slice::from_ref(event))).await {
                Some(judged) => judged?,
                None => tracing::error!(
                    room = %room_id, event = %event.event_id, origin = %event.origin,
                    "an event is dropped: judging it panics"
                ),
            }
        }
        Ok(())
    }

    async fn judge_waiting(&self, room_id: &RoomId, waiting: &[Waiting]) -> Result<()> {
        match self.inhabited(room_id).await? {
            Some(now) => self.judge_batch(&Room::from(&*now), waiting).await,
            None => self.retract(room_id, waiting).await,
        }
    }

    async fn judge_batch(&self, room: &Room, waiting: &[Waiting]) -> Result<()> {
        let jsons: Vec<Box<RawValue>> =
            waiting.iter().filter_map(|event| RawValue::from_string(event.body.clone()).ok()).collect();
        let events = self.verified(room, &jsons).await?;
        let origins: BTreeMap<&str, &str> = waiting.iter().map(|e| (e.event_id.as_str(), e.origin.as_str())).collect();
        for at in graph::order(&events) {
            let event = events[at].clone();
            let id = event.event_id.clone();
            let Some(origin) = origins.get(id.as_str()).and_then(|o| OwnedServerName::try_from(*o).ok()) else {
                continue;
            };
            match self.take(room, &origin, event, How::LIVE).await {
                Ok(Taken::Accepted(_) | Taken::Known) => {}
                Ok(Taken::SoftFailed(refusal) | Taken::Rejected(refusal)) => {
                    tracing::info!(event = %id, %origin, %refusal, "an event is refused");
                }
                Ok(Taken::Undecided(missing)) => {
                    tracing::info!(event = %id, %origin, missing = missing.len(), "nobody vouches for an event");
                }
                Err(error @ (Error::Storage(_) | Error::Stopping)) => return Err(error),
                Err(error @ Error::Internal(_)) => tracing::error!(event = %id, %origin, %error, "an event is lost"),
                Err(error) => tracing::info!(event = %id, %origin, %error, "an event cannot be judged"),
            }
        }
        Ok(())
    }

    /// Go on with rooms whose events have waited since before `at` (ms).
    pub(super) async fn resume(&self, at: i64) -> Result<()> {
        for room_id in incoming::rooms_waiting(&mut self.0.cx.store.read().await?, at).await? {
            if let Ok(room_id) = OwnedRoomId::try_from(room_id) {
                self.work(room_id);
            }
        }
        Ok(())
    }

    /// Events an instance that died left waiting, and answers nobody will ask for again.
    pub(super) fn watch_for_orphans(&self) {
        let weak = std::sync::Arc::downgrade(&self.0);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(ORPHANS_EVERY).await;
                let Some(inner) = weak.upgrade() else { return };
                let incoming = Self(inner);
                let every_ms = i64::try_from(ORPHANS_EVERY.as_millis()).unwrap_or(i64::MAX);
                let swept = async {
                    incoming.resume(incoming.now() - every_ms).await?;
                    let kept_ms = i64::try_from(ANSWERS_KEPT_MS).unwrap_or(i64::MAX);
                    let mut tx = incoming.0.cx.store.begin().await?;
                    incoming::forget(&mut tx, incoming.now() - kept_ms).await?;
                    tx.commit().await?;
                    Ok::<_, Error>(())
                };
                if let Err(error) = swept.await {
                    tracing::warn!(%error, "what other servers sent cannot be looked through");
                }
            }
        });
    }
}

/// A room has a worker as long as this lives, however the worker ends.
struct AtWork {
    incoming: Incoming,
    room_id: OwnedRoomId,
}

impl AtWork {
    /// `None` when the room has one.
    fn begin(incoming: &Incoming, room_id: &RoomId) -> Option<Self> {
        let mut rooms = incoming.0.at_work.lock().unwrap_or_else(PoisonError::into_inner);
        rooms.insert(room_id.to_owned()).then(|| Self { incoming: incoming.clone(), room_id: room_id.to_owned() })
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        self.incoming.0.at_work.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.room_id);
    }
}

/// What a task comes to; `None` when it panics. The panic has been told where panics are told.
async fn unless_it_panics<T>(task: impl Future<Output = T>) -> Option<T> {
    // What is shared with others stands behind locks that outlive a panic, and in the database.
    AssertUnwindSafe(task).catch_unwind().await.ok()
}

fn read_answer(answer: &str) -> Result<Outcomes> {
    let stored: BTreeMap<OwnedEventId, Option<String>> = serde_json::from_str(answer).map_err(Error::internal)?;
    Ok(stored.into_iter().map(|(id, problem)| (id, problem.map_or(Ok(()), Err))).collect())
}
