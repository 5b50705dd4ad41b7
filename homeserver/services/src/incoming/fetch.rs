//! Asking other servers for events: what vouches for one, what came before it, the state it stands on, and older history.
//!
//! Whatever comes is checked like everything else (format, signatures, hashes, what vouches for it); an answer can leave things out
//! but cannot make us believe anything.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use futures_util::{StreamExt as _, stream};
use room::{
    Pdu,
    event::create_event_id,
    graph,
    receive::{Aim, MISSING_AUTH_EVENTS_MAX, Receive, Step, Verdict},
    versions,
};
use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, ServerName, UInt,
    api::{
        Direction,
        federation::{
            authorization::get_event_authorization,
            backfill::get_backfill,
            event::{get_event, get_event_by_timestamp, get_missing_events, get_room_state, get_room_state_ids},
        },
    },
};
use serde_json::value::RawValue;

use super::{Incoming, Room};
use crate::{Error, Result, federation::client::Terms, timeline::snapshots::Snapshot};

/// Events asked for one by one at a time.
const ASKED_AT_ONCE_MAX: usize = 8;
/// Events of a state asked for one by one; if more are missing, the whole state is asked for.
const SINGLY_MAX: usize = 100;
/// Events asked for at a time to fill a gap, and how often; a longer gap stays history that is fetched when somebody pages to it.
const GAP_LEN_MAX: u32 = 50;
const GAP_ROUNDS_MAX: u32 = 20;
/// An answer with fewer events is all the server has to tell of a gap: servers give up to a limit, and none has a lower one.
const GAP_ANSWER_FULL_LEN: usize = 20;
/// Events looked at before other work has its turn.
const EVENTS_PER_TURN: usize = 64;
/// Events taken from one answer about a state and what vouches for it.
const STATE_LEN_MAX: usize = 400_000;

impl Incoming {
    /// Check format, signatures and hashes of events said to belong to a room; those that fail are left out.
    pub(crate) async fn verified(&self, room: &Room, jsons: &[Box<RawValue>]) -> Result<Vec<Arc<Pdu>>> {
        let mut events = Vec::with_capacity(jsons.len());
        let mut seen = HashSet::new();
        for (at, json) in jsons.iter().enumerate() {
            if at % EVENTS_PER_TURN == EVENTS_PER_TURN - 1 {
                tokio::task::yield_now().await;
            }
            match Pdu::from_remote(json.get().as_bytes(), room.rules) {
                Ok(event) if event.room_id() == room.id && seen.insert(event.event_id().to_owned()) => {
                    events.push(event);
                }
                Ok(_) => {}
                Err(problem) => tracing::debug!(room = %room.id, %problem, "an event is not one"),
            }
        }
        let mut checked = Vec::with_capacity(events.len());
        for verdict in self.0.federation.keys().verify(events).await? {
            match verdict {
                Ok(event) => checked.push(Arc::new(event)),
                Err(problem) => tracing::debug!(room = %room.id, %problem, "an event is not signed as it must be"),
            }
        }
        Ok(checked)
    }

    /// Keep events for their place in states and auth chains, each judged by what vouches for it. Returns the ids of those kept
    /// and allowed; an event nobody vouches for is left out.
    pub(crate) async fn keep(&self, room: &Room, events: &[Arc<Pdu>]) -> Result<HashSet<OwnedEventId>> {
        let named = events.iter().flat_map(|event| event.auth_events.iter().cloned());
        let mut ids: Vec<OwnedEventId> = named.chain(events.iter().map(|event| event.event_id.clone())).collect();
        if versions::room_id_is_create_hash(room.rules) {
            ids.extend(create_event_id(&room.id));
        }
        ids.sort_unstable();
        ids.dedup();
        let stored = self.0.timeline.events.by_ids(&ids).await?;
        let mut known: HashMap<OwnedEventId, Arc<Pdu>> =
            stored.into_iter().map(|(id, event)| (id, Arc::clone(&event.pdu))).collect();
        let (mut kept, mut fresh) = (HashSet::new(), Vec::new());
        for (turn, at) in graph::order(events).into_iter().enumerate() {
            if turn % EVENTS_PER_TURN == EVENTS_PER_TURN - 1 {
                tokio::task::yield_now().await;
            }
            let event = &events[at];
            if let Some(event) = known.get(&event.event_id) {
                if !event.rejected {
                    kept.insert(event.event_id.clone());
                }
                continue;
            }
            let mut receive = Receive::new(Arc::clone(event), room.rules, Aim::Outlier);
            let verdict = loop {
                match receive.step() {
                    Step::NeedAuth(ids) => receive.supply(ids.iter().filter_map(|id| known.get(id)).cloned()),
                    Step::NeedState { .. } => receive.supply([]),
                    Step::Done(verdict) => break verdict,
                }
            };
            let is_rejected = match verdict {
                Verdict::Accept | Verdict::SoftFail(_) => false,
                Verdict::Reject(refusal) => {
                    tracing::debug!(event = %event.event_id, %refusal, "an event of the past is refused");
                    true
                }
                Verdict::Undecided { .. } => continue,
            };
            let event = Arc::new(Pdu::clone(event).with_rejected(is_rejected));
            known.insert(event.event_id.clone(), Arc::clone(&event));
            if !is_rejected {
                kept.insert(event.event_id.clone());
            }
            fresh.push((event, is_rejected));
        }
        self.0.timeline.keep_outliers(room.nid, &fresh).await?;
        Ok(kept)
    }

    /// See that everything an event names as its witness is here, as far as `origin` has it.
    pub(super) async fn fetch_auth(&self, room: &Room, origin: &ServerName, event: &Pdu) -> Result<()> {
        let known = self.0.timeline.events.by_ids(&event.auth_events).await?;
        if event.auth_events.iter().all(|id| known.contains_key(id)) {
            return Ok(());
        }
        let request = get_event_authorization::v1::Request::new(room.id.clone(), event.event_id.clone());
        match self.0.federation.client().send_for_large(origin, request, Terms::LARGE).await {
            Ok(held) => {
                let chain = &held.answer.auth_chain;
                let chain = self.verified(room, &chain[..chain.len().min(STATE_LEN_MAX)]).await?;
                self.keep(room, &chain).await?;
            }
            // Some may be had one by one all the same.
            Err(error) => tracing::debug!(room = %room.id, %error, "what vouches for an event is not told"),
        }
        let known = self.0.timeline.events.by_ids(&event.auth_events).await?;
        let left: Vec<_> = event.auth_events.iter().filter(|id| !known.contains_key(*id)).cloned().collect();
        let singly = self.fetch_events(room, origin, &left[..left.len().min(MISSING_AUTH_EVENTS_MAX)]).await?;
        self.keep(room, &singly).await?;
        Ok(())
    }

    /// Events between our heads and `event` that `origin` has and we do not, the earliest first. A gap longer than an answer is
    /// asked for in several rounds; what is older than the last round's stays history.
    pub(super) async fn fetch_gap(&self, room: &Room, origin: &ServerName, event: &Pdu) -> Result<Vec<Arc<Pdu>>> {
        let now = self.0.timeline.now(room.nid).await?;
        let heads: Vec<OwnedEventId> = now.heads.iter().map(|head| head.event.event_id.clone()).collect();
        let mut gap: HashMap<OwnedEventId, Arc<Pdu>> = HashMap::new();
        let mut latest = vec![event.event_id.clone()];
        for _ in 0..GAP_ROUNDS_MAX {
            let mut request = get_missing_events::v1::Request::new(room.id.clone(), heads.clone(), latest);
            request.limit = UInt::from(GAP_LEN_MAX);
            let answer = match self.0.federation.client().send(origin, request, Terms::BRIEF).await {
                Ok(answer) => answer,
                // What the rounds before brought is worth having.
                Err(error) if !gap.is_empty() => {
                    tracing::debug!(room = %room.id, %error, "a gap is filled in part");
                    break;
                }
                Err(error) => return Err(error),
            };
            let count = answer.events.len().min(GAP_LEN_MAX as usize);
            let mut fresh = self.verified(room, &answer.events[..count]).await?;
            fresh.retain(|missed| missed.event_id != event.event_id && !gap.contains_key(&missed.event_id));
            gap.extend(fresh.iter().map(|missed| (missed.event_id.clone(), Arc::clone(missed))));
            latest = self.followers_of_missing(&fresh, &gap).await?;
            if latest.is_empty() || count < GAP_ANSWER_FULL_LEN {
                break;
            }
        }
        let events: Vec<Arc<Pdu>> = gap.into_values().collect();
        let order = graph::order(&events);
        Ok(order.into_iter().map(|at| Arc::clone(&events[at])).collect())
    }

    /// Those of `events` that follow what is neither in `gap` nor here.
    async fn followers_of_missing(
        &self,
        events: &[Arc<Pdu>],
        gap: &HashMap<OwnedEventId, Arc<Pdu>>,
    ) -> Result<Vec<OwnedEventId>> {
        let is_in_gap = |id: &OwnedEventId| gap.contains_key(id);
        let before: Vec<OwnedEventId> =
            events.iter().flat_map(|event| event.prev_events.iter().filter(|id| !is_in_gap(id)).cloned()).collect();
        let known = self.0.timeline.events.by_ids(&before).await?;
        let is_here = |id: &OwnedEventId| is_in_gap(id) || known.get(id).is_some_and(|event| event.state_nid.is_some());
        let follows = events.iter().filter(|event| !event.prev_events.iter().all(is_here));
        Ok(follows.map(|event| event.event_id.clone()).collect())
    }

    /// Older history than `from`, as `server` tells it, the earliest first.
    pub(super) async fn fetch_history(
        &self,
        room: &Room,
        server: &ServerName,
        from: Vec<OwnedEventId>,
        limit: u32,
    ) -> Result<Vec<Arc<Pdu>>> {
        let request = get_backfill::v1::Request::new(room.id.clone(), from, UInt::from(limit));
        let answer = self.0.federation.client().send(server, request, Terms::BRIEF).await?;
        let count = answer.pdus.len().min(limit as usize);
        let events = self.verified(room, &answer.pdus[..count]).await?;
        let order = graph::order(&events);
        Ok(order.into_iter().map(|at| Arc::clone(&events[at])).collect())
    }

    /// The state before an event, as `origin` has it. What is missing of it is fetched; what cannot be had is left out.
    pub(super) async fn fetch_state(
        &self,
        room: &Room,
        origin: &ServerName,
        event_id: &EventId,
    ) -> Result<Arc<Snapshot>> {
        let request = get_room_state_ids::v1::Request::new(event_id.to_owned(), room.id.clone());
        let ids = self.0.federation.client().send_for_large(origin, request, Terms::LARGE).await?.answer;
        if ids.pdu_ids.len() + ids.auth_chain_ids.len() > STATE_LEN_MAX {
            return Err(Error::TooLarge(format!("the state of {} is larger than {STATE_LEN_MAX} events", room.id)));
        }
        let wanted: Vec<OwnedEventId> = ids.pdu_ids.iter().chain(&ids.auth_chain_ids).cloned().collect();
        let known = self.0.timeline.events.by_ids(&wanted).await?;
        let missing: Vec<OwnedEventId> = wanted.into_iter().filter(|id| !known.contains_key(id)).collect();
        let fetched = if missing.len() <= SINGLY_MAX {
            self.fetch_events(room, origin, &missing).await?
        } else {
            let request = get_room_state::v1::Request::new(event_id.to_owned(), room.id.clone());
            let held = self.0.federation.client().send_for_large(origin, request, Terms::LARGE).await?;
            let answer = held.answer;
            let all: Vec<_> = answer.auth_chain.into_iter().chain(answer.pdus).take(STATE_LEN_MAX).collect();
            self.verified(room, &all).await?
        };
        self.keep(room, &fetched).await?;
        let state = self.0.timeline.events.by_ids(&ids.pdu_ids).await?;
        let allowed: Vec<OwnedEventId> = state
            .into_values()
            .filter(|event| !event.pdu.rejected && event.room_nid == room.nid)
            .map(|event| event.pdu.event_id.clone())
            .collect();
        self.0.timeline.snapshot_of(room.nid, &allowed).await
    }

    /// The event nearest to a time, as `server` says.
    pub(super) async fn ask_nearest(
        &self,
        room: &Room,
        server: &ServerName,
        at: MilliSecondsSinceUnixEpoch,
        direction: Direction,
    ) -> Result<OwnedEventId> {
        let request = get_event_by_timestamp::v1::Request::new(room.id.clone(), at, direction);
        Ok(self.0.federation.client().send(server, request, Terms::BRIEF.at_once()).await?.event_id)
    }

    /// Events by id; those `origin` does not give are left out.
    pub(super) async fn fetch_events(
        &self,
        room: &Room,
        origin: &ServerName,
        ids: &[OwnedEventId],
    ) -> Result<Vec<Arc<Pdu>>> {
        let answers = stream::iter(ids.to_vec())
            .map(|id| async move {
                let request = get_event::v1::Request::new(id);
                self.0.federation.client().send(origin, request, Terms::BRIEF).await.ok().map(|answer| answer.pdu)
            })
            .buffer_unordered(ASKED_AT_ONCE_MAX)
            .filter_map(std::future::ready)
            .collect::<Vec<_>>()
            .await;
        let events = self.verified(room, &answers).await?;
        Ok(events.into_iter().filter(|event| ids.contains(&event.event_id)).collect())
    }
}
