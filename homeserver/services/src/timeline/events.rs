//! Events in memory, by number and by id. An event may change (it finds its place, it is redacted): whoever stores that replaces
//! it here, and the other instances forget theirs by the news.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use quick_cache::{Weighter, sync::Cache};
use room::{
    event::Pdu,
    versions::{self, Rules},
};
use ruma::{EventId, OwnedEventId, OwnedRoomId, RoomVersionId};
use storage::events::{self, Row, flags};

use crate::{Context, Error, Result, notify::Whisper};

/// Memory for events, in bytes of JSON (the parsed form takes about as much again).
const CACHE_BYTES: u64 = 24 << 20;
/// Events the cache expects to hold.
const CACHE_EVENTS: usize = 20_000;
/// Events changed by other instances that are remembered as such.
const CHANGED_MAX: usize = 10_000;
/// Family of [`Whisper::Forget`] for an event outside the stream that changed; its key is the event's number.
pub(super) const FORGET_EVENT: &str = "event";
/// Ids remembered with their numbers.
const IDS_MAX: usize = 50_000;

/// An event with what we know of its place.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its number.
    pub nid: i64,
    /// Its room.
    pub room_nid: i64,
    /// See [`storage::events::flags`].
    pub flags: i64,
    /// State before it; `None` for an outlier.
    pub state_nid: Option<i64>,
    /// State after it, when different.
    pub state_after_nid: Option<i64>,
    /// The event.
    pub pdu: Arc<Pdu>,
}

impl Stored {
    /// True when the flag (or any of them) is set.
    #[must_use]
    pub fn has(&self, flag: i64) -> bool {
        self.flags & flag != 0
    }

    /// State after the event.
    #[must_use]
    pub fn state_after(&self) -> Option<i64> {
        self.state_after_nid.or(self.state_nid)
    }

    /// Its place in the room's history.
    #[must_use]
    pub fn place(&self) -> events::Place {
        (i64::try_from(self.pdu.depth).unwrap_or(i64::MAX), self.nid)
    }

    /// True when clients may page to it.
    #[must_use]
    pub fn is_visible(&self) -> bool {
        !self.has(flags::OUTLIER | flags::REJECTED | flags::SOFT_FAILED)
    }
}

#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<i64, Arc<Stored>> for ByBytes {
    fn weight(&self, _: &i64, event: &Arc<Stored>) -> u64 {
        event.pdu.json.len() as u64 + 200
    }
}

/// A room's id and rules, which never change.
pub type Nature = (OwnedRoomId, &'static Rules);

/// The events of all rooms. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Events {
    cx: Context,
    by_nid: Arc<Cache<i64, Arc<Stored>, ByBytes>>,
    nids: Arc<Cache<OwnedEventId, i64>>,
    natures: Arc<RwLock<HashMap<i64, Nature>>>,
    /// Built and not stored yet: what is built upon them must find them.
    building: Arc<RwLock<HashMap<i64, Arc<Stored>>>>,
    /// Events another instance changed, with their flags since: a row read before must not be remembered after.
    changed: Arc<Cache<i64, i64>>,
}

impl Events {
    /// With an empty memory.
    #[must_use]
    pub fn new(cx: Context) -> Self {
        let events = Self {
            cx,
            by_nid: Arc::new(Cache::with_weighter(CACHE_EVENTS, CACHE_BYTES, ByBytes)),
            nids: Arc::new(Cache::new(IDS_MAX)),
            natures: Arc::default(),
            building: Arc::default(),
            changed: Arc::new(Cache::new(CHANGED_MAX)),
        };
        let (by_nid, changed) = (Arc::clone(&events.by_nid), Arc::clone(&events.changed));
        events.cx.notify.on_change(move |change| {
            if change.any_event {
                by_nid.clear();
            }
            for (nid, flags) in &change.events {
                if by_nid.get(nid).is_some_and(|event| event.flags == *flags) {
                    // Our own writer has replaced it already.
                    changed.remove(nid);
                } else {
                    changed.insert(*nid, *flags);
                    by_nid.remove(nid);
                }
            }
        });
        let by_nid = Arc::clone(&events.by_nid);
        events.cx.notify.on_whisper(move |whisper| match whisper {
            Whisper::Forget(family, nid) if family == FORGET_EVENT => {
                if let Ok(nid) = nid.parse::<i64>() {
                    by_nid.remove(&nid);
                }
            }
            Whisper::Missed => by_nid.clear(),
            _ => {}
        });
        events
    }

    /// Remember a room's id and rules.
    pub fn learn_room(&self, room_nid: i64, nature: Nature) {
        self.natures.write().unwrap_or_else(PoisonError::into_inner).insert(room_nid, nature);
    }

    /// An event was built; until [`Events::put`] or [`Events::forget`] it is found by number alone.
    pub fn built(&self, event: Arc<Stored>) {
        self.building.write().unwrap_or_else(PoisonError::into_inner).insert(event.nid, event);
    }

    fn in_memory(&self, nid: i64) -> Option<Arc<Stored>> {
        let found = self.by_nid.get(&nid);
        found.or_else(|| self.building.read().unwrap_or_else(PoisonError::into_inner).get(&nid).cloned())
    }

    /// Remember an event just stored or changed.
    pub fn put(&self, event: Arc<Stored>) {
        self.building.write().unwrap_or_else(PoisonError::into_inner).remove(&event.nid);
        self.nids.insert(event.pdu.event_id.clone(), event.nid);
        self.by_nid.insert(event.nid, event);
    }

    /// The event with this number, if it is in memory.
    #[must_use]
    pub fn remembered(&self, nid: i64) -> Option<Arc<Stored>> {
        self.by_nid.get(&nid)
    }

    /// Forget an event another instance changed, or that was built and not stored.
    pub fn forget(&self, nid: i64) {
        self.building.write().unwrap_or_else(PoisonError::into_inner).remove(&nid);
        self.by_nid.remove(&nid);
    }

    /// Events by number; unknown numbers are left out. One statement for those not in memory.
    ///
    /// # Errors
    /// The database's.
    pub async fn by_nids(&self, nids: &[i64]) -> Result<HashMap<i64, Arc<Stored>>> {
        let mut found = HashMap::with_capacity(nids.len());
        let mut left = Vec::new();
        for nid in nids {
            match self.in_memory(*nid) {
                Some(event) => drop(found.insert(*nid, event)),
                None => left.push(*nid),
            }
        }
        if !left.is_empty() {
            let rows = events::by_nids(&mut self.cx.store.read().await?, &left).await?;
            for event in self.read(rows).await? {
                found.insert(event.nid, event);
            }
        }
        Ok(found)
    }

    /// The event with this number.
    ///
    /// # Errors
    /// [`Error::NotFound`], or the database's.
    pub async fn by_nid(&self, nid: i64) -> Result<Arc<Stored>> {
        if let Some(event) = self.in_memory(nid) {
            return Ok(event);
        }
        self.by_nids(&[nid]).await?.remove(&nid).ok_or(Error::NotFound("event"))
    }

    /// Events by id; unknown ids are left out.
    ///
    /// # Errors
    /// The database's.
    pub async fn by_ids(&self, ids: &[OwnedEventId]) -> Result<HashMap<OwnedEventId, Arc<Stored>>> {
        let mut found = HashMap::with_capacity(ids.len());
        let mut left = Vec::new();
        for id in ids {
            match self.nids.get(id).and_then(|nid| self.by_nid.get(&nid)) {
                Some(event) => drop(found.insert(id.clone(), event)),
                None => left.push(id),
            }
        }
        if !left.is_empty() {
            let rows = events::by_ids(&mut self.cx.store.read().await?, &left).await?;
            for event in self.read(rows).await? {
                found.insert(event.pdu.event_id.clone(), event);
            }
        }
        Ok(found)
    }

    /// The event with this id, if we have it.
    ///
    /// # Errors
    /// The database's.
    pub async fn by_id(&self, id: &EventId) -> Result<Option<Arc<Stored>>> {
        if let Some(event) = self.nids.get(id).and_then(|nid| self.by_nid.get(&nid)) {
            return Ok(Some(event));
        }
        Ok(self.by_ids(&[id.to_owned()]).await?.remove(id))
    }

    /// Read rows into memory, in their order.
    ///
    /// # Errors
    /// The database's, for rooms not in memory; [`Error::Internal`] for a damaged row.
    pub async fn read(&self, rows: Vec<Row>) -> Result<Vec<Arc<Stored>>> {
        self.learn_rooms(rows.iter().map(|row| row.room_nid)).await?;
        rows.into_iter().map(|row| self.read_one(&row)).collect()
    }

    fn read_one(&self, row: &Row) -> Result<Arc<Stored>> {
        if let Some(event) = self.by_nid.get(&row.nid)
            && event.flags == row.flags
            && event.state_nid == row.state_nid
        {
            return Ok(event);
        }
        let (room_id, rules) = self.nature(row.room_nid).ok_or_else(|| Error::internal("event of an unknown room"))?;
        let event_id = EventId::parse(&row.event_id).map_err(Error::internal)?;
        let json = String::from_utf8(row.json()?).map_err(Error::internal)?;
        let pdu = Pdu::from_stored(event_id, room_id, json, rules)?.with_rejected(row.has(flags::REJECTED));
        let event = Arc::new(Stored {
            nid: row.nid,
            room_nid: row.room_nid,
            flags: row.flags,
            state_nid: row.state_nid,
            state_after_nid: row.state_after_nid,
            pdu: Arc::new(pdu),
        });
        let is_old = || self.changed.get(&row.nid).is_some_and(|flags| flags != row.flags);
        if !is_old() {
            self.put(Arc::clone(&event));
            // The news may have come in between.
            if is_old() {
                self.by_nid.remove(&row.nid);
            }
        }
        Ok(event)
    }

    fn nature(&self, room_nid: i64) -> Option<Nature> {
        self.natures.read().unwrap_or_else(PoisonError::into_inner).get(&room_nid).cloned()
    }

    async fn learn_rooms(&self, room_nids: impl Iterator<Item = i64>) -> Result<()> {
        let mut unknown: Vec<i64> = room_nids.filter(|nid| self.nature(*nid).is_none()).collect();
        unknown.sort_unstable();
        unknown.dedup();
        if unknown.is_empty() {
            return Ok(());
        }
        let heads = storage::rooms::by_nids(&mut self.cx.store.read().await?, &unknown).await?;
        for head in heads {
            self.learn_room(head.nid, nature(&head)?);
        }
        Ok(())
    }
}

/// A stored head's room id and rules.
///
/// # Errors
/// [`Error::Internal`] when the row names a room or version we do not understand.
pub fn nature(head: &storage::rooms::Head) -> Result<Nature> {
    let version = RoomVersionId::try_from(head.version.as_str()).map_err(Error::internal)?;
    let rules = versions::rules(&version).map_err(Error::internal)?;
    let room_id = OwnedRoomId::try_from(head.room_id.as_str()).map_err(Error::internal)?;
    Ok((room_id, rules))
}
