//! The judging of one event: fetch what is missing, ask crate `room`, give it to the timeline.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use room::{
    Pdu, Refusal,
    receive::{Aim, Receive, StateAt, Step, Verdict},
};
use ruma::{MilliSecondsSinceUnixEpoch, OwnedEventId, ServerName, api::Direction};
use storage::events::flags;

use super::{Incoming, Room};
use crate::{
    Error, Result,
    federation::client::failure,
    timeline::{Arrival, Placement, events::Stored, snapshots::Snapshot},
};

/// How an event is to be taken.
#[derive(Debug, Clone, Copy)]
pub struct How {
    /// How far it is checked.
    pub aim: Aim,
    /// Whether a gap before it may be filled with the events in it. Otherwise the state before it is fetched.
    pub fills_gaps: bool,
    /// Whether it is passed on to the other servers.
    pub relay: bool,
}

impl How {
    /// An event that a transaction brought.
    pub const LIVE: Self = Self { aim: Aim::Live, fills_gaps: true, relay: false };
    /// An event of a gap: what is missing before it is too old to show.
    pub const GAP: Self = Self { aim: Aim::Live, fills_gaps: false, relay: false };
    /// An event of the past.
    pub const PAST: Self = Self { aim: Aim::Past, fills_gaps: false, relay: false };
    /// A membership made with our help, which we tell the others about.
    pub const RELAYED: Self = Self { aim: Aim::Live, fills_gaps: false, relay: true };
}

/// What became of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// It is part of the room; its position, if it is in the stream.
    Accepted(Option<i64>),
    /// It was here before.
    Known,
    /// Kept, not shown.
    SoftFailed(Refusal),
    /// Kept as refused.
    Rejected(Refusal),
    /// Nothing could be decided: these witnesses are missing.
    Undecided(Vec<OwnedEventId>),
}

impl Incoming {
    /// Take one verified event, sent or told by `origin`, into its room.
    ///
    /// # Errors
    /// The database's; [`crate::Error::Remote`] when `origin` does not give what is needed to judge.
    pub fn take<'a>(
        &'a self,
        room: &'a Room,
        origin: &'a ServerName,
        event: Arc<Pdu>,
        how: How,
    ) -> BoxFuture<'a, Result<Taken>> {
        Box::pin(async move {
            let known = self.0.timeline.events.by_id(&event.event_id).await?;
            if known.is_some_and(|event| !event.has(flags::OUTLIER)) {
                return Ok(Taken::Known);
            }
            // First the gap before it, in which most of what vouches for it is found.
            let state_before = self.state_before(room, origin, &event, how).await?;
            if !self.0.cx.is_us(origin) {
                self.fetch_auth(room, origin, &event).await?;
            }
            let verdict = self.judge(room, &event, &state_before, how.aim).await?;
            let placement = match &verdict {
                Verdict::Accept if how.aim == Aim::Past => Placement::Past,
                Verdict::Accept => Placement::Live,
                Verdict::SoftFail(_) => Placement::SoftFailed,
                Verdict::Reject(_) => Placement::Rejected,
                Verdict::Undecided { missing } => return Ok(Taken::Undecided(missing.clone())),
            };
            let pdu = Arc::new(Pdu::clone(&event).with_rejected(placement == Placement::Rejected));
            let arrival = Arrival { pdu, placement, state_before, relay: how.relay };
            let pos = self.0.timeline.accept(room.nid, &arrival).await?;
            Ok(match verdict {
                Verdict::SoftFail(refusal) => Taken::SoftFailed(refusal),
                Verdict::Reject(refusal) => Taken::Rejected(refusal),
                _ => Taken::Accepted(pos),
            })
        })
    }

    /// The state before an event, whatever must be asked for it.
    async fn state_before(
        &self,
        room: &Room,
        origin: &ServerName,
        event: &Arc<Pdu>,
        how: How,
    ) -> Result<Arc<Snapshot>> {
        if event.is_create() && event.prev_events.is_empty() {
            return Ok(Snapshot::empty());
        }
        let timeline = &self.0.timeline;
        if let Some(state) = timeline.state_before(room.nid, room.rules, &event.prev_events).await? {
            return Ok(state);
        }
        if how.fills_gaps && self.fill_gap(room, origin, event).await? == Gap::Asked {
            if let Some(state) = timeline.state_before(room.nid, room.rules, &event.prev_events).await? {
                return Ok(state);
            }
            // Who sends an event has those right before it. Were it let in without them, its sender alone would say what the room's
            // state is. The next event's gap, in which this one is, gives it another chance.
            return Err(failure(origin, "it keeps back what comes before an event it sent"));
        }
        self.state_elsewhere(room, origin, event).await
    }

    /// Take what `origin` has between our heads and an event.
    async fn fill_gap(&self, room: &Room, origin: &ServerName, event: &Arc<Pdu>) -> Result<Gap> {
        let gap = match self.fetch_gap(room, origin, event).await {
            Ok(gap) => gap,
            Err(error @ (Error::Storage(_) | Error::Stopping)) => return Err(error),
            Err(error) => {
                tracing::debug!(room = %room.id, %error, "a gap cannot be filled");
                return Ok(Gap::Unknown);
            }
        };
        for missed in gap {
            let id = missed.event_id.clone();
            match self.take(room, origin, missed, How::GAP).await {
                Ok(_) => {}
                Err(error @ (Error::Storage(_) | Error::Stopping)) => return Err(error),
                Err(error) => tracing::debug!(event = %id, %error, "an event of a gap cannot be judged"),
            }
        }
        Ok(Gap::Asked)
    }

    /// The state before an event some of whose previous ones are not here: after those that are, as we know it; after the others, as
    /// `origin` has it, or if it does not tell, before the event itself.
    async fn state_elsewhere(&self, room: &Room, origin: &ServerName, event: &Arc<Pdu>) -> Result<Arc<Snapshot>> {
        let timeline = &self.0.timeline;
        let known = timeline.events.by_ids(&event.prev_events).await?;
        let state_of = |id: &OwnedEventId| known.get(id).and_then(|event| event.state_after());
        let missing: Vec<&OwnedEventId> = event.prev_events.iter().filter(|id| state_of(id).is_none()).collect();
        if missing.is_empty() || missing.len() > STATES_ASKED_MAX {
            return self.fetch_state(room, origin, &event.event_id).await;
        }
        let mut states: Vec<i64> = event.prev_events.iter().filter_map(state_of).collect();
        for id in missing {
            match self.state_after_missing(room, origin, id).await {
                Ok(state) => states.push(state.nid),
                Err(error @ (Error::Storage(_) | Error::Stopping)) => return Err(error),
                Err(error) => {
                    tracing::debug!(room = %room.id, event = %id, %error, "the state after an event is not told");
                    return self.fetch_state(room, origin, &event.event_id).await;
                }
            }
        }
        timeline.resolve(room.nid, room.rules, &states).await
    }

    /// The state after an event that has no place here: what `origin` says it was before it, and the event itself if that state
    /// allows it.
    async fn state_after_missing(
        &self,
        room: &Room,
        origin: &ServerName,
        event_id: &OwnedEventId,
    ) -> Result<Arc<Snapshot>> {
        let before = self.fetch_state(room, origin, event_id).await?;
        let timeline = &self.0.timeline;
        let event = match timeline.events.by_id(event_id).await? {
            Some(event) => Arc::clone(&event.pdu),
            None => {
                let fetched = self.fetch_events(room, origin, std::slice::from_ref(event_id)).await?.pop();
                fetched.ok_or_else(|| failure(origin, "it does not give an event that it builds on"))?
            }
        };
        if event.state_key.is_none() || event.rejected {
            return Ok(before);
        }
        self.fetch_auth(room, origin, &event).await?;
        if self.judge(room, &event, &before, Aim::Past).await? != Verdict::Accept {
            return Ok(before);
        }
        self.keep(room, std::slice::from_ref(&event)).await?;
        match timeline.events.by_id(event_id).await? {
            Some(event) => timeline.snapshot_with(room.nid, &before, &event).await,
            None => Ok(before),
        }
    }

    /// What the room's rules say.
    async fn judge(&self, room: &Room, event: &Arc<Pdu>, before: &Arc<Snapshot>, aim: Aim) -> Result<Verdict> {
        let timeline = &self.0.timeline;
        let mut receive = Receive::new(Arc::clone(event), room.rules, aim);
        loop {
            match receive.step() {
                Step::NeedAuth(ids) => {
                    let events = timeline.events.by_ids(&ids).await?;
                    receive.supply(events.into_values().map(|event| Arc::clone(&event.pdu)));
                }
                Step::NeedState { at, keys } => {
                    let snapshot = match at {
                        StateAt::BeforeEvent => Arc::clone(before),
                        StateAt::Now => Arc::clone(&timeline.now(room.nid).await?.snapshot),
                    };
                    let mut events = Vec::with_capacity(keys.len());
                    for (kind, key) in &keys {
                        events.extend(timeline.state_event_in(&snapshot, kind, key).await?);
                    }
                    receive.supply(events.into_iter().map(|event| Arc::clone(&event.pdu)));
                }
                Step::Done(verdict) => return Ok(verdict),
            }
        }
    }

    /// Fetch at most `limit` events older than what we have of a room where it is no deeper than `depth_max`. Returns how many
    /// became part of its history; 0 when the beginning is reached or nobody who could know answers.
    ///
    /// # Errors
    /// The database's.
    pub async fn backfill(&self, room_nid: i64, depth_max: i64, limit: u32) -> Result<usize> {
        let now = self.0.timeline.now(room_nid).await?;
        let room = Room::from(&*now);
        let edges =
            storage::events::missing(&mut self.0.cx.store.read().await?, room_nid, depth_max, EDGES_MAX).await?;
        if edges.is_empty() {
            return Ok(0);
        }
        // The children of what is missing: a peer answers with what comes before them, themselves included.
        let children: Vec<i64> = edges.iter().map(|(_, child, _)| *child).collect();
        let children = self.0.timeline.events.by_nids(&children).await?;
        let mut from: Vec<OwnedEventId> = children.values().map(|event| event.pdu.event_id.clone()).collect();
        from.sort_unstable();
        for server in self.servers_of(&now).await?.into_iter().take(SERVERS_ASKED_MAX) {
            let history = match self.fetch_history(&room, &server, from.clone(), limit).await {
                Ok(history) => history,
                Err(error) => {
                    tracing::debug!(%server, %error, "history cannot be had");
                    continue;
                }
            };
            let mut count = 0;
            for event in history {
                let id = event.event_id.clone();
                match self.take(&room, &server, event, How::PAST).await {
                    Ok(Taken::Accepted(_)) => count += 1,
                    Ok(_) => {}
                    Err(error) => tracing::debug!(event = %id, %error, "an event of the past cannot be judged"),
                }
            }
            if count > 0 {
                return Ok(count);
            }
        }
        Ok(0)
    }

    /// The event nearest to a time that another server in a room names, fetched into the room's history. `None` when nobody knows one.
    ///
    /// # Errors
    /// The database's.
    pub async fn nearest_elsewhere(
        &self,
        room_nid: i64,
        at: MilliSecondsSinceUnixEpoch,
        direction: Direction,
    ) -> Result<Option<Arc<Stored>>> {
        let now = self.0.timeline.now(room_nid).await?;
        let room = Room::from(&*now);
        for server in self.servers_of(&now).await?.into_iter().take(SERVERS_ASKED_MAX) {
            let Ok(event_id) = self.ask_nearest(&room, &server, at, direction).await else { continue };
            if let Some(event) = self.fetch_events(&room, &server, std::slice::from_ref(&event_id)).await?.pop()
                && let Err(error) = self.take(&room, &server, event, How::PAST).await
            {
                tracing::debug!(event = %event_id, %error, "an event of the past cannot be judged");
            }
            let event = self.0.timeline.events.by_id(&event_id).await?;
            if let Some(event) = event.filter(|event| event.room_nid == room_nid && event.is_visible()) {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// The other servers in a room, those with most users first.
    pub(crate) async fn servers_of(&self, now: &crate::timeline::now::RoomNow) -> Result<Vec<ruma::OwnedServerName>> {
        let mut counted: Vec<(u32, i64)> = now.inhabitants.servers.iter().map(|(nid, count)| (*count, *nid)).collect();
        counted.sort_unstable_by(|a, b| b.cmp(a));
        let nids: Vec<i64> = counted.iter().map(|(_, nid)| *nid).collect();
        let names = self.0.cx.numbers.server_names(&nids).await?;
        let servers = nids.iter().filter_map(|nid| names.get(nid)?.parse::<ruma::OwnedServerName>().ok());
        Ok(servers.filter(|server| !self.0.cx.is_us(server)).collect())
    }
}

/// What came of asking for a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gap {
    /// What was told has been taken.
    Asked,
    /// The server did not answer.
    Unknown,
}

/// Missing events the state after which is asked for to judge one event.
const STATES_ASKED_MAX: usize = 4;
/// Edges of known history asked for at once.
const EDGES_MAX: i64 = 20;
/// Servers asked for history in turn.
const SERVERS_ASKED_MAX: usize = 5;
