//! What was said: pages of a room's history, an event with its surroundings, single events.
//!
//! Tokens name gaps between events: `t{depth}_{nid}` is the gap before the event at that place, `s{pos}…` (a token of sync) the
//! gap behind what was known at that position. Pages are looked up by place, so one is as cheap as another.
//! Source: Client-Server API, "Getting events for a room", "Event context"; "Lazy-loading room members".

use std::{
    collections::{BTreeSet, HashSet},
    fmt,
    str::FromStr,
    sync::Arc,
};

use room::event::{RoomIdShown, kind};
use ruma::{EventId, OwnedUserId, RoomId};
use serde_json::value::RawValue;
use storage::{
    events::{self, Place},
    history as rows,
};

use super::Rooms;
use crate::{
    Error, Result,
    accounts::User,
    reading::{Access, Right},
    sync::{Token, filter::EventFilter},
    timeline::{events::Stored, now::RoomNow, snapshots::Snapshot},
    view::{Options, Shown},
};

/// Events of a page at most.
pub const PAGE_LEN_MAX: usize = 1000;
/// Events of a page when nobody says how many.
pub const PAGE_LEN: usize = 10;
/// Events around one at most.
const CONTEXT_LEN_MAX: usize = 100;
/// Events fetched at once when a filter or the reader's rights may drop most of them.
const SEARCHED_LEN: usize = 200;
/// How often more is fetched for one page.
const SEARCHES_MAX: usize = 10;
/// Events asked of another server at least, when history is missing.
const FETCHED_LEN_MIN: u32 = 100;

/// A point in a room's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// The gap before this place.
    Gap(Place),
    /// The gap behind what was known at this position.
    Stream(i64),
}

impl FromStr for Point {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::InvalidParam("this is not a token of this server".to_owned());
        if text.starts_with('s') {
            return text.parse::<Token>().map(|token| Self::Stream(token.pos)).map_err(|_| wrong());
        }
        let (depth, nid) = text.strip_prefix('t').and_then(|rest| rest.split_once('_')).ok_or_else(wrong)?;
        let number = |text: &str| text.parse::<i64>().ok().filter(|number| *number >= 0);
        Ok(Self::Gap((number(depth).ok_or_else(wrong)?, number(nid).ok_or_else(wrong)?)))
    }
}

/// A gap as clients know it.
struct Gap(Place);

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{}_{}", self.0.0, self.0.1)
    }
}

/// The page somebody asks for.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Where it begins; `None` is the end of the room's history when going back, its beginning otherwise.
    pub from: Option<Point>,
    /// Where it ends at the latest.
    pub to: Option<Point>,
    /// Towards the past.
    pub back: bool,
    /// How many.
    pub limit: usize,
    /// Which.
    pub filter: EventFilter,
}

/// A page of a room's history.
#[derive(Debug)]
pub struct Page {
    /// Where it begins.
    pub start: String,
    /// Where the next one begins; `None` when there is none.
    pub end: Option<String>,
    /// The events.
    pub chunk: Vec<Box<RawValue>>,
    /// Members needed to show them, when the filter asks for it.
    pub state: Vec<Box<RawValue>>,
}

/// An event with what stands around it.
#[derive(Debug)]
pub struct Around {
    /// The gap before all of it.
    pub start: String,
    /// The gap behind all of it.
    pub end: String,
    /// The event.
    pub event: Box<RawValue>,
    /// What came before, the newest first.
    pub before: Vec<Box<RawValue>>,
    /// What came after, the oldest first.
    pub after: Vec<Box<RawValue>>,
    /// The room's state at the last of them.
    pub state: Vec<Box<RawValue>>,
}

/// What became of the gaps in a piece of history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Filled {
    /// There is none.
    Whole,
    /// Other servers gave something of what was missing.
    Come,
    /// Nobody gave anything.
    Missing,
}

/// Events that were looked through.
struct Found {
    shown: Vec<Shown>,
    /// The gap behind the last one looked at, in the direction of reading.
    end: Place,
    /// Whether there is nothing more in that direction now.
    is_over: bool,
}

/// Users whose member events are shown beside what they said.
type Senders = BTreeSet<OwnedUserId>;

/// Which events to look through.
struct Search {
    from: Place,
    /// Nothing beyond this gap.
    to: Option<Place>,
    back: bool,
    limit: usize,
    filter: EventFilter,
}

impl Rooms {
    /// A page of a room's history.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for who may not read the room.
    pub async fn messages(&self, user: &User, room_id: &RoomId, wanted: Wanted) -> Result<Page> {
        let access = self.from.reading.access(user, room_id).await?;
        let now = &access.now;
        let mut from = match wanted.from {
            Some(point) => self.gap(now, point).await?,
            None if wanted.back => live_end(now),
            None => (0, 0),
        };
        let mut to = match wanted.to {
            Some(point) => Some(self.gap(now, point).await?),
            None => None,
        };
        if let Some(last) = last_gap(&access) {
            from = from.min(last);
            if !wanted.back {
                to = Some(to.map_or(last, |to| to.min(last)));
            }
        }
        let limit = wanted.limit.clamp(1, PAGE_LEN_MAX);
        let search = Search { from, to, back: wanted.back, limit, filter: wanted.filter };
        let found = if search.filter.wants_room(room_id.as_str()) {
            self.search(&access, &search).await?
        } else {
            Found { shown: Vec::new(), end: from, is_over: true }
        };
        let options = Options { room_id: RoomIdShown::Yes, bundles: true, past: true };
        let chunk = self.from.view.render(&access.reader, &found.shown, options).await?;
        let state = if search.filter.lazy_load_members {
            let newest = if wanted.back { found.shown.first() } else { found.shown.last() };
            self.senders(newest.map(|shown| &*shown.event), &senders_of(&found.shown)).await?
        } else {
            Vec::new()
        };
        // Towards the present more may come at any time, and clients take it for granted that a page a filter found something
        // for has an end: there is a next page after every such one.
        let may_go_on = !wanted.back || !search.filter.is_open();
        let has_next = !found.is_over || (may_go_on && !found.shown.is_empty());
        let end = has_next.then(|| Gap(found.end).to_string());
        Ok(Page { start: Gap(from).to_string(), end, chunk, state })
    }

    /// An event and about `limit` around it.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an event one may not see.
    pub async fn context(
        &self,
        user: &User,
        room_id: &RoomId,
        event_id: &EventId,
        limit: usize,
        filter: EventFilter,
    ) -> Result<Around> {
        let (access, event) = self.seen(user, room_id, event_id).await?;
        let limit = limit.min(CONTEXT_LEN_MAX);
        let (from, to) = (event.place(), last_gap(&access));
        let mut search = Search { from, to: None, back: true, limit: limit / 2, filter };
        let before = self.search(&access, &search).await?;
        search = Search { from: gap_after(&event), to, back: false, limit: limit - limit / 2, ..search };
        let after = self.search(&access, &search).await?;
        let target = self.with_txns(user, vec![Arc::clone(&event)]).await?;
        let last = after.shown.last().map_or(&event, |shown| &shown.event);
        let all: Vec<Shown> = before.shown.iter().chain(&target).chain(&after.shown).cloned().collect();
        let state = if search.filter.lazy_load_members {
            self.senders_and_room(last, &senders_of(&all)).await?
        } else {
            let snapshot = self.from.timeline.snapshots.by_nid(last.state_after().unwrap_or_default()).await?;
            self.plain(&self.from.timeline.state_events(&snapshot).await?)?
        };
        let options = Options { room_id: RoomIdShown::Yes, bundles: true, past: true };
        let mut rendered = self.from.view.render(&access.reader, &all, options).await?.into_iter();
        let before_events = rendered.by_ref().take(before.shown.len()).collect();
        let event = rendered.next().ok_or_else(|| Error::internal("an event was not rendered"))?;
        Ok(Around {
            start: Gap(before.end).to_string(),
            end: Gap(after.end).to_string(),
            event,
            before: before_events,
            after: rendered.collect(),
            state,
        })
    }

    /// A single event.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an event one may not see.
    pub async fn event(&self, user: &User, room_id: &RoomId, event_id: &EventId) -> Result<Box<RawValue>> {
        let (access, event) = self.seen(user, room_id, event_id).await?;
        let shown = self.with_txns(user, vec![event]).await?;
        let options = Options { room_id: RoomIdShown::Yes, bundles: true, past: true };
        let rendered = self.from.view.render(&access.reader, &shown, options).await?;
        rendered.into_iter().next().ok_or_else(|| Error::internal("an event was not rendered"))
    }

    /// A single event of any room.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an event one may not see.
    pub async fn event_of_any(&self, user: &User, event_id: &EventId) -> Result<Box<RawValue>> {
        let event = self.from.timeline.events.by_id(event_id).await?.ok_or(Error::NotFound("event"))?;
        let now = self.from.timeline.now(event.room_nid).await?;
        self.event(user, &now.room_id, event_id).await
    }

    /// A point as a gap.
    pub(super) async fn gap(&self, now: &RoomNow, point: Point) -> Result<Place> {
        match point {
            Point::Gap(gap) => Ok(gap),
            Point::Stream(pos) if now.last_pos > 0 && pos >= now.last_pos => Ok(live_end(now)),
            Point::Stream(pos) => {
                let place = rows::place_at(&mut self.cx.store.read().await?, now.nid, pos).await?;
                Ok(place.map_or((0, 0), |(depth, nid)| (depth, nid.saturating_add(1))))
            }
        }
    }

    /// Look through a room's history for events that the reader may and wants to see.
    async fn search(&self, access: &Access, search: &Search) -> Result<Found> {
        let mut found = Found { shown: Vec::new(), end: search.from, is_over: search.limit == 0 };
        let mut may_ask_others = search.back && access.now.inhabitants.servers.len() > 1;
        for _ in 0..SEARCHES_MAX {
            let left = search.limit - found.shown.len();
            if left == 0 || found.is_over {
                break;
            }
            let is_narrow = !search.filter.is_open() || found.end != search.from;
            let len = if is_narrow { left.max(SEARCHED_LEN) } else { left };
            let mut page = self.page(access.now.nid, found.end, search.back, len).await?;
            let mut filled = Filled::Whole;
            if may_ask_others {
                filled = self.fill_gaps(&access.now, &page, found.end, len).await?;
                may_ask_others = filled == Filled::Come;
            }
            if filled == Filled::Come {
                page = self.page(access.now.nid, found.end, search.back, len).await?;
            }
            let is_short = page.len() < len;
            found.is_over = is_short && filled == Filled::Whole;
            self.take(access, search, page, &mut found).await?;
            if is_short && filled != Filled::Whole {
                // What is still missing is asked for again with the next page, unless this one has nothing.
                if !found.shown.is_empty() {
                    break;
                }
                found.is_over |= filled == Filled::Missing;
            }
        }
        Ok(found)
    }

    /// Take from a page what the reader may and wants to see.
    async fn take(&self, access: &Access, search: &Search, page: Vec<Shown>, found: &mut Found) -> Result<()> {
        let events: Vec<Arc<Stored>> = page.iter().map(|shown| Arc::clone(&shown.event)).collect();
        let seen = self.from.reading.visible(access, events).await?;
        let seen: HashSet<i64> = seen.into_iter().map(|event| event.nid).collect();
        for shown in page {
            let place = shown.event.place();
            let is_beyond = search.to.is_some_and(|to| if search.back { place < to } else { place >= to });
            if is_beyond {
                found.is_over = true;
                return Ok(());
            }
            if found.shown.len() == search.limit {
                found.is_over = false;
                return Ok(());
            }
            found.end = if search.back { place } else { gap_after(&shown.event) };
            if search.back && shown.event.pdu.is_create() {
                found.is_over = true;
            }
            let pdu = &shown.event.pdu;
            if seen.contains(&shown.event.nid) && search.filter.wants(&pdu.kind, pdu.sender.as_str(), pdu.content.get())
            {
                found.shown.push(shown);
            }
        }
        Ok(())
    }

    async fn page(&self, room_nid: i64, gap: Place, back: bool, len: usize) -> Result<Vec<Shown>> {
        let limit = i64::try_from(len).unwrap_or(i64::MAX);
        let mut tx = self.cx.store.read().await?;
        let page = if back {
            rows::back(&mut tx, room_nid, gap, limit).await?
        } else {
            rows::forward(&mut tx, room_nid, gap, limit).await?
        };
        drop(tx);
        let (txns, page): (Vec<Option<String>>, Vec<_>) = page.into_iter().map(|row| (row.txn, row.event)).unzip();
        let events = self.from.timeline.events.read(page).await?;
        Ok(events.into_iter().zip(txns).map(|(event, txn)| Shown { event, txn: txn.map(Arc::from) }).collect())
    }

    /// Ask other servers for what is missing among the events of a page, or behind it when it is short.
    async fn fill_gaps(&self, now: &RoomNow, page: &[Shown], from: Place, len: usize) -> Result<Filled> {
        let missing = events::missing(&mut self.cx.store.read().await?, now.nid, from.0, 1).await?;
        let lowest = page.last().filter(|_| page.len() == len).map_or(0, |shown| shown.event.place().0);
        if !missing.iter().any(|(_, _, depth)| *depth >= lowest) {
            return Ok(Filled::Whole);
        }
        let limit = u32::try_from(len).unwrap_or(u32::MAX).max(FETCHED_LEN_MIN);
        match self.from.incoming.backfill(now.nid, from.0, limit).await {
            Ok(0) => Ok(Filled::Missing),
            Ok(_) => Ok(Filled::Come),
            Err(error) => {
                tracing::info!(%error, room_id = %now.room_id, "history of a room could not be fetched");
                Ok(Filled::Missing)
            }
        }
    }

    /// The event with this id, if a user may read it in this room.
    async fn seen(&self, user: &User, room_id: &RoomId, event_id: &EventId) -> Result<(Access, Arc<Stored>)> {
        let access = self.from.reading.access(user, room_id).await.map_err(|error| match error {
            Error::Forbidden(_) => Error::NotFound("event"),
            error => error,
        })?;
        let event = self.from.reading.event(&access, event_id).await?;
        Ok((access, event))
    }

    /// Events with the transaction ids with which the reader sent them.
    async fn with_txns(&self, user: &User, events: Vec<Arc<Stored>>) -> Result<Vec<Shown>> {
        let own: Vec<i64> = events.iter().filter(|e| e.pdu.sender == user.user_id).map(|e| e.nid).collect();
        let txns = if own.is_empty() { Vec::new() } else { rows::txns(&mut self.cx.store.read().await?, &own).await? };
        let txn_of = |nid| txns.iter().find(|(of, _)| *of == nid).map(|(_, txn)| Arc::from(txn.as_str()));
        Ok(events.into_iter().map(|event| Shown { txn: txn_of(event.nid), event }).collect())
    }

    /// The member events of those who sent events, as of the newest of these.
    async fn senders(&self, newest: Option<&Stored>, senders: &Senders) -> Result<Vec<Box<RawValue>>> {
        let Some(newest) = newest else { return Ok(Vec::new()) };
        let snapshot = self.from.timeline.snapshots.by_nid(newest.state_after().unwrap_or_default()).await?;
        let keys = self.sender_events(&snapshot, senders).await?;
        let mut events = self.from.timeline.events.by_nids(&keys).await?;
        let events: Vec<Arc<Stored>> = keys.iter().filter_map(|nid| events.remove(nid)).collect();
        self.plain(&events)
    }

    /// The room's state, of its members only those who sent events.
    async fn senders_and_room(&self, last: &Stored, senders: &Senders) -> Result<Vec<Box<RawValue>>> {
        let snapshot = self.from.timeline.snapshots.by_nid(last.state_after().unwrap_or_default()).await?;
        let senders: HashSet<i64> = self.sender_events(&snapshot, senders).await?.into_iter().collect();
        let keys: Vec<i64> = snapshot.state.iter().filter_map(|(key, _)| i64::try_from(key.0).ok()).collect();
        let names = self.cx.numbers.state_key_names(&keys).await?;
        let wanted: Vec<i64> = snapshot
            .state
            .iter()
            .filter_map(|(key, event)| Some((i64::try_from(key.0).ok()?, i64::try_from(event.0).ok()?)))
            .filter(|(key, event)| {
                senders.contains(event) || names.get(key).is_some_and(|(event_kind, _)| &**event_kind != kind::MEMBER)
            })
            .map(|(_, event)| event)
            .collect();
        let mut events = self.from.timeline.events.by_nids(&wanted).await?;
        let events: Vec<Arc<Stored>> = wanted.iter().filter_map(|nid| events.remove(nid)).collect();
        self.plain(&events)
    }

    /// The numbers of senders' member events in a state.
    async fn sender_events(&self, snapshot: &Snapshot, senders: &Senders) -> Result<Vec<i64>> {
        let mut nids = Vec::with_capacity(senders.len());
        for sender in senders {
            let Some(key) = self.cx.numbers.state_key_if_known(kind::MEMBER, sender.as_str()).await? else { continue };
            let key = room::state::StateKeyNumber(u64::try_from(key).unwrap_or_default());
            nids.extend(snapshot.state.get(key).and_then(|event| i64::try_from(event.0).ok()));
        }
        Ok(nids)
    }

    pub(super) fn plain(&self, events: &[Arc<Stored>]) -> Result<Vec<Box<RawValue>>> {
        events.iter().map(|event| self.from.view.plain(event, RoomIdShown::Yes)).collect()
    }
}

/// Who sent these.
fn senders_of(shown: &[Shown]) -> Senders {
    shown.iter().map(|shown| shown.event.pdu.sender.clone()).collect()
}

/// The gap behind everything.
fn live_end(now: &RoomNow) -> Place {
    (now.depth.saturating_add(1), 0)
}

/// The gap behind an event.
fn gap_after(event: &Stored) -> Place {
    let (depth, nid) = event.place();
    (depth, nid.saturating_add(1))
}

/// The gap in a room's history behind which a reader who left sees nothing.
pub(super) fn last_gap(access: &Access) -> Option<Place> {
    match &access.right {
        Right::Left(event) => Some(gap_after(event)),
        _ => None,
    }
}
