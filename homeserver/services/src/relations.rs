//! What was said about an event: its relations in pages, a room's threads, the event nearest to a time.
//!
//! Reading alone. Relations are written with the event that makes them ([`crate::timeline`]); the summary of them beside an event is
//! [`crate::view`]'s.

use std::sync::Arc;

use room::event::RoomIdShown;
use ruma::{EventId, MilliSecondsSinceUnixEpoch, RoomId, api::Direction};
use serde_json::value::RawValue;
use storage::{
    events::{self, Place},
    relations::{self, Thread, Wanted},
};

use crate::{
    Context, Error, Result,
    accounts::User,
    incoming::Incoming,
    place::{BEGIN, END, Token},
    reading::{Access, Reading},
    timeline::{Timeline, events::Stored},
    view::{Options, Shown, View},
};

/// Events of one page when a client does not say how many.
const PAGE_LEN: usize = 20;
/// Events of one page at most.
const PAGE_LEN_MAX: usize = 100;
/// How many relations one behind the other are followed.
pub const LEVELS_MAX: i64 = 3;
/// Events near a time that are looked at until one of them may be seen.
const NEAR_MAX: i64 = 100;

/// How much is shown beside each event.
const OPTIONS: Options = Options { room_id: RoomIdShown::Yes, bundles: true, past: true };

/// Which relations of an event somebody wants.
#[derive(Debug, Clone, Default)]
pub struct Query<'a> {
    /// Only this `rel_type`.
    pub rel_type: Option<&'a str>,
    /// Only this event type, exactly as written.
    pub kind: Option<&'a str>,
    /// Where the page begins; the newest (or, forward, the oldest) if nowhere.
    pub from: Option<Token>,
    /// Where to stop.
    pub to: Option<Token>,
    /// From the oldest to the newest.
    pub is_forward: bool,
    /// How many.
    pub limit: Option<usize>,
    /// Also relations to what relates to the event, up to [`LEVELS_MAX`].
    pub recurse: bool,
}

/// A page of events.
#[derive(Debug)]
pub struct Page {
    /// The events, as clients see them.
    pub chunk: Vec<Box<RawValue>>,
    /// Where the next page begins; nothing at the end.
    pub next: Option<Token>,
}

/// Reads relations. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Relations {
    cx: Context,
    timeline: Timeline,
    view: View,
    reading: Reading,
    incoming: Incoming,
}

impl Relations {
    /// From these.
    #[must_use]
    pub fn new(cx: Context, timeline: Timeline, view: View, reading: Reading, incoming: Incoming) -> Self {
        Self { cx, timeline, view, reading, incoming }
    }

    /// What was said about an event, as far as `user` may see it.
    ///
    /// # Errors
    /// [`Error::Forbidden`], [`Error::NotFound`] for the room and the event; [`Error::InvalidParam`].
    pub async fn page(&self, user: &User, room_id: &RoomId, event_id: &EventId, query: &Query<'_>) -> Result<Page> {
        let access = self.reading.access(user, room_id).await?;
        let parent = self.reading.event(&access, event_id).await?;
        let len = page_len(query.limit)?;
        let mut tx = self.cx.store.read().await?;
        let from = match query.from {
            Some(token) => token.place(&mut tx, access.now.nid).await?,
            None if query.is_forward => BEGIN,
            None => END,
        };
        let to = match query.to {
            Some(token) => Some(token.place(&mut tx, access.now.nid).await?),
            None => None,
        };
        let wanted = Wanted {
            parent_id: parent.pdu.event_id.as_str(),
            rel_type: query.rel_type,
            kind: query.kind,
            levels: if query.recurse { LEVELS_MAX } else { 1 },
        };
        // Forward pages begin with the event at the place itself; the statement asks for what is greater.
        let start = if query.is_forward { (from.0, from.1.saturating_sub(1)) } else { from };
        // One more than shown says whether there is more.
        let rows = relations::page(&mut tx, wanted, start, !query.is_forward, limit_of(len + 1)).await?;
        drop(tx);
        let nids: Vec<i64> = rows.iter().map(|row| row.child_nid).collect();
        let mut found = self.timeline.events.by_nids(&nids).await?;
        let mut children: Vec<Arc<Stored>> = nids.iter().filter_map(|nid| found.remove(nid)).collect();
        let has_more = children.len() > len;
        children.truncate(len);
        let next = children.last().filter(|_| has_more).map(|last| next(last.place(), query.is_forward));
        let is_before_end = |event: &Arc<Stored>| match (to, query.is_forward) {
            (None, _) => true,
            (Some(to), true) => event.place() < to,
            (Some(to), false) => event.place() >= to,
        };
        let all = children.len();
        children.retain(is_before_end);
        let next = next.filter(|_| children.len() == all);
        children.retain(|event| event.room_nid == access.now.nid);
        Ok(Page { chunk: self.shown(&access, children).await?, next })
    }

    /// A room's threads, the one written to last first; each as its first event.
    ///
    /// # Errors
    /// [`Error::Forbidden`]; [`Error::InvalidParam`].
    pub async fn threads(
        &self,
        user: &User,
        room_id: &RoomId,
        from: Option<Token>,
        limit: Option<usize>,
        only_own: bool,
    ) -> Result<Page> {
        let access = self.reading.access(user, room_id).await?;
        let len = page_len(limit)?;
        let mut tx = self.cx.store.read().await?;
        let from = match from {
            Some(token) => token.place(&mut tx, access.now.nid).await?,
            None => END,
        };
        let limit = limit_of(len + 1);
        let mut threads: Vec<Thread> = if only_own {
            relations::threads_of_user(&mut tx, access.now.nid, from, user.nid, limit).await?
        } else {
            relations::threads_of_room(&mut tx, access.now.nid, from, limit).await?
        };
        drop(tx);
        let has_more = threads.len() > len;
        threads.truncate(len);
        let next = threads.last().filter(|_| has_more).map(|t| Token::Before((t.last_depth, t.last_nid)));
        let roots: Vec<i64> = threads.iter().map(|thread| thread.root_nid).collect();
        let mut found = self.timeline.events.by_nids(&roots).await?;
        let roots = roots.iter().filter_map(|nid| found.remove(nid)).filter(|root| root.is_visible()).collect();
        Ok(Page { chunk: self.shown(&access, roots).await?, next })
    }

    /// The event nearest to a time that `user` may see: at or after it when `is_forward`, else at or before it.
    ///
    /// # Errors
    /// [`Error::Forbidden`]; [`Error::NotFound`].
    pub async fn nearest(
        &self,
        user: &User,
        room_id: &RoomId,
        at: MilliSecondsSinceUnixEpoch,
        is_forward: bool,
    ) -> Result<Arc<Stored>> {
        let access = self.reading.access(user, room_id).await?;
        let ts = i64::try_from(u64::from(at.get())).unwrap_or(i64::MAX);
        let mut tx = self.cx.store.read().await?;
        let rows = events::by_time(&mut tx, access.now.nid, ts, is_forward, NEAR_MAX).await?;
        drop(tx);
        let mut near = self.timeline.events.read(rows).await?;
        near = self.reading.visible(&access, near).await?;
        near.truncate(1);
        if access.is_joined() && self.has_gaps(access.now.nid).await? {
            // What we have may not be the nearest there is.
            let direction = if is_forward { Direction::Forward } else { Direction::Backward };
            let elsewhere = self.incoming.nearest_elsewhere(access.now.nid, at, direction).await?;
            let is_that_way = |event: &Arc<Stored>| {
                let found = event.pdu.origin_server_ts_ms();
                if is_forward { found >= at.get().into() } else { found <= at.get().into() }
            };
            let elsewhere = elsewhere.into_iter().filter(is_that_way).collect();
            near.extend(self.reading.visible(&access, elsewhere).await?);
        }
        let distance = |event: &Arc<Stored>| event.pdu.origin_server_ts_ms().abs_diff(at.get().into());
        near.into_iter().min_by_key(distance).ok_or(Error::NotFound("event near this time"))
    }

    /// Whether events of a room are known that we do not have.
    async fn has_gaps(&self, room_nid: i64) -> Result<bool> {
        Ok(!events::missing(&mut self.cx.store.read().await?, room_nid, i64::MAX, 1).await?.is_empty())
    }

    async fn shown(&self, access: &Access, events: Vec<Arc<Stored>>) -> Result<Vec<Box<RawValue>>> {
        let events = self.reading.visible(access, events).await?;
        let shown: Vec<Shown> = events.into_iter().map(Shown::from).collect();
        self.view.render(&access.reader, &shown, OPTIONS).await
    }
}

fn page_len(limit: Option<usize>) -> Result<usize> {
    match limit {
        Some(0) => Err(Error::InvalidParam("limit must be greater than zero".to_owned())),
        Some(limit) => Ok(limit.min(PAGE_LEN_MAX)),
        None => Ok(PAGE_LEN),
    }
}

fn limit_of(len: usize) -> i64 {
    i64::try_from(len).unwrap_or(i64::MAX)
}

fn next(last: Place, is_forward: bool) -> Token {
    if is_forward { Token::after(last) } else { Token::Before(last) }
}
