//! History for other servers: backwards from events, between events, and by time.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use room::Pdu;
use ruma::{MilliSecondsSinceUnixEpoch, OwnedEventId, RoomId, ServerName};

use super::Resident;
use crate::{Error, Result, timeline::events::Stored};

/// Events of one answer.
const EVENTS_MAX: usize = 100;

/// The event nearest to a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nearest {
    /// Its id.
    pub event_id: OwnedEventId,
    /// When its sender says it was made.
    pub at: MilliSecondsSinceUnixEpoch,
}

impl Resident {
    /// At most `limit` events, these and those before them, the latest first.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Forbidden`].
    pub async fn backfill(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        from: &[OwnedEventId],
        limit: usize,
    ) -> Result<Vec<Arc<Pdu>>> {
        let now = self.shared_room(origin, room_id).await?;
        let events = self.walk_back(now.nid, from, &HashSet::new(), 0, limit.min(EVENTS_MAX)).await?;
        self.shown_to(origin, &now, events).await
    }

    /// Events before `latest` and not before `earliest`, the earliest first, at most `limit`.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Forbidden`].
    pub async fn missing_events(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        (earliest, latest): (&[OwnedEventId], &[OwnedEventId]),
        min_depth: u64,
        limit: usize,
    ) -> Result<Vec<Arc<Pdu>>> {
        let now = self.shared_room(origin, room_id).await?;
        let known = self.timeline.events.by_ids(&latest[..latest.len().min(EVENTS_MAX)]).await?;
        let before: Vec<OwnedEventId> =
            known.values().filter(|e| e.room_nid == now.nid).flat_map(|e| e.pdu.prev_events.clone()).collect();
        let earliest: HashSet<OwnedEventId> = earliest.iter().cloned().collect();
        let mut events = self.walk_back(now.nid, &before, &earliest, min_depth, limit.min(EVENTS_MAX)).await?;
        events.reverse();
        self.shown_to(origin, &now, events).await
    }

    /// Events and their predecessors, the deepest first, stopping at `stop`.
    async fn walk_back(
        &self,
        room_nid: i64,
        from: &[OwnedEventId],
        stop: &HashSet<OwnedEventId>,
        min_depth: u64,
        limit: usize,
    ) -> Result<Vec<Arc<Stored>>> {
        let mut seen: HashSet<OwnedEventId> = stop.clone();
        let mut fresh: Vec<OwnedEventId> =
            from.iter().take(EVENTS_MAX).filter(|id| seen.insert((*id).clone())).cloned().collect();
        let mut waiting: BTreeSet<(u64, OwnedEventId)> = BTreeSet::new();
        let mut found = Vec::new();
        loop {
            for event in self.timeline.events.by_ids(&fresh).await?.into_values() {
                if event.room_nid == room_nid && event.state_nid.is_some() && event.pdu.depth >= min_depth {
                    waiting.insert((event.pdu.depth, event.pdu.event_id.clone()));
                }
            }
            let Some((_, id)) = waiting.pop_last() else { return Ok(found) };
            if found.len() >= limit {
                return Ok(found);
            }
            let event = self.timeline.events.by_id(&id).await?.ok_or(Error::NotFound("event"))?;
            fresh = event.pdu.prev_events.iter().filter(|id| seen.insert((*id).clone())).cloned().collect();
            found.push(event);
        }
    }

    /// The visible event nearest to a time, at or after it when `forward`, else at or before it.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Forbidden`].
    pub async fn by_time(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        at: MilliSecondsSinceUnixEpoch,
        forward: bool,
    ) -> Result<Nearest> {
        let now = self.shared_room(origin, room_id).await?;
        let mut tx = self.cx.store.read().await?;
        let row = storage::events::by_time(&mut tx, now.nid, at.get().into(), forward, 1).await?.into_iter().next();
        drop(tx);
        let event = self.timeline.events.read(row.into_iter().collect()).await?.pop();
        let event = event.ok_or(Error::NotFound("event"))?;
        Ok(Nearest { event_id: event.pdu.event_id.clone(), at: event.pdu.origin_server_ts })
    }
}
