//! Receipts: how far each user has read, told to others (`m.read`) or not (`m.read.private`), for the whole room or for one
//! thread.
//!
//! A receipt of our own user also moves their read marks, which the unread counts start from: an unthreaded one those of the
//! room and of its threads, a threaded one that of its lane. Neither receipts nor marks move back; a receipt of another server
//! may name an event we do not have and is kept as it came.
//!
//! Not here: counting what is unread (`timeline`), telling other servers (federation reads [`Receipts::local_between`]).

use ruma::{EventId, RoomId};
use storage::{
    Tx, account_data, events, receipts as table,
    receipts::{ReadUpTo, Receipt},
    relations, timeline,
};

use crate::{Context, Error, Result, accounts::User, joined, notify::Change, timeline::effects::THREAD_HOPS_MAX};

/// Threads whose marks one unthreaded receipt moves at most, those with the newest events first.
const THREADS_MARKED_MAX: i64 = 1000;
/// Receipts taken from one message of another server.
pub const REMOTE_RECEIPTS_MAX: usize = 500;

/// Who is told of a receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `m.read`: everybody in the room.
    Public,
    /// `m.read.private`: the reader's own devices.
    Private,
}

impl Kind {
    /// As the specification writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Public => "m.read",
            Self::Private => "m.read.private",
        }
    }
}

/// What part of a room a receipt is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lane {
    /// All of it, threads too.
    Room,
    /// The main timeline.
    Main,
    /// The thread with this root.
    Thread(ruma::OwnedEventId),
}

impl Lane {
    fn as_stored(&self) -> &str {
        match self {
            Self::Room => "",
            Self::Main => "main",
            Self::Thread(root) => root.as_str(),
        }
    }
}

/// A receipt that another server sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteReceipt {
    /// The reader, one of the sending server's users.
    pub user_id: ruma::OwnedUserId,
    /// The event read.
    pub event_id: ruma::OwnedEventId,
    /// The part of the room it is about.
    pub lane: Lane,
    /// The reader's clock, milliseconds since 1970.
    pub ts: i64,
}

/// Receipts and read markers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Receipts {
    cx: Context,
}

/// An event we know the place of.
#[derive(Debug, Clone, Copy)]
struct Place {
    event_nid: i64,
    pos: i64,
    thread_nid: i64,
}

impl Receipts {
    /// On `cx`.
    #[must_use]
    pub fn new(cx: Context) -> Self {
        Self { cx }
    }

    /// `user` has read up to `event_id`. One that is further back than what is stored changes nothing.
    ///
    /// # Errors
    /// [`Error::Forbidden`] when the user is not in the room; [`Error::InvalidParam`] when a thread is named that the event is
    /// not in.
    pub async fn put(&self, user: &User, room_id: &RoomId, kind: Kind, lane: &Lane, event_id: &EventId) -> Result<()> {
        let room_nid = joined::room(&self.cx, room_id, user.nid).await?;
        let place = self.place(room_nid, event_id).await?;
        let lane_nid = self.lane_nid(lane, event_id, place).await?;
        let mut tx = self.cx.store.begin().await?;
        let stored = table::one(&mut tx, room_nid, user.nid, kind.as_str(), lane.as_stored()).await?;
        if let Some(stored) = stored
            && (stored.event_id == event_id.as_str() || is_behind(&mut tx, place, &stored.event_id).await?)
        {
            return Ok(tx.rollback().await?);
        }
        let receipt = Receipt {
            room_nid,
            user_nid: user.nid,
            kind: kind.as_str().to_owned(),
            thread: lane.as_stored().to_owned(),
            event_id: event_id.as_str().to_owned(),
            ts: i64::try_from(self.cx.clock.now_ms()).unwrap_or(i64::MAX),
        };
        table::put(&mut tx, &receipt).await?;
        if let Some(place) = place {
            let up_to = ReadUpTo { user_nid: user.nid, room_nid, event_nid: place.event_nid, pos: place.pos };
            match lane {
                Lane::Room => table::read_room(&mut tx, up_to, THREADS_MARKED_MAX).await?,
                Lane::Main | Lane::Thread(_) => table::read_lane(&mut tx, up_to, lane_nid).await?,
            }
        }
        let span = tx.commit().await?;
        // The counts that the reader's own devices show change with it.
        self.cx.notify.publish(Change { receipt_rooms: vec![room_nid], users: vec![user.nid], ..Change::at(span) });
        Ok(())
    }

    /// `user` has seen everything up to `event_id`: the marker their clients draw, `m.fully_read`.
    ///
    /// # Errors
    /// [`Error::Forbidden`] when the user is not in the room.
    pub async fn put_fully_read(&self, user: &User, room_id: &RoomId, event_id: &EventId) -> Result<()> {
        let room_nid = joined::room(&self.cx, room_id, user.nid).await?;
        let body = serde_json::json!({ "event_id": event_id }).to_string();
        let mut tx = self.cx.store.begin().await?;
        account_data::put(&mut tx, user.nid, room_nid, "m.fully_read", &body).await?;
        let span = tx.commit().await?;
        self.cx.notify.publish(Change { users: vec![user.nid], ..Change::at(span) });
        Ok(())
    }

    /// Receipts of another server's users in a room; at most [`REMOTE_RECEIPTS_MAX`] are taken. Whether the users belong to
    /// that server and are in the room is for the caller to have checked.
    ///
    /// # Errors
    /// The database's.
    pub async fn receive(&self, room_nid: i64, receipts: &[RemoteReceipt]) -> Result<()> {
        let receipts = &receipts[..receipts.len().min(REMOTE_RECEIPTS_MAX)];
        let users: Vec<&ruma::UserId> = receipts.iter().map(|receipt| &*receipt.user_id).collect();
        let user_nids = self.cx.numbers.users(&users).await?;
        let mut places = Vec::with_capacity(receipts.len());
        for receipt in receipts {
            places.push(self.place(room_nid, &receipt.event_id).await?);
        }
        let mut tx = self.cx.store.begin().await?;
        for ((receipt, user_nid), place) in receipts.iter().zip(user_nids).zip(places) {
            let (kind, thread) = (Kind::Public.as_str(), receipt.lane.as_stored());
            let stored = table::one(&mut tx, room_nid, user_nid, kind, thread).await?;
            if let Some(stored) = stored
                && (stored.event_id == receipt.event_id.as_str() || is_behind(&mut tx, place, &stored.event_id).await?)
            {
                continue;
            }
            let receipt = Receipt {
                room_nid,
                user_nid,
                kind: kind.to_owned(),
                thread: thread.to_owned(),
                event_id: receipt.event_id.as_str().to_owned(),
                ts: receipt.ts,
            };
            table::put(&mut tx, &receipt).await?;
        }
        let span = tx.commit().await?;
        self.cx.notify.publish(Change { receipt_rooms: vec![room_nid], ..Change::at(span) });
        Ok(())
    }

    /// Receipts in rooms that `reader_nid` may see: for each (room, since), those with `since < pos <= until`.
    ///
    /// # Errors
    /// The database's.
    pub async fn since(&self, rooms: &[(i64, i64)], until: i64, reader_nid: i64) -> Result<Vec<Receipt>> {
        Ok(table::since(&mut self.cx.store.read().await?, rooms, until, reader_nid).await?)
    }

    /// Public receipts of our own users in `since < pos <= until`, at most `limit`, in order: for the other servers.
    ///
    /// # Errors
    /// The database's.
    pub async fn local_between(&self, since: i64, until: i64, limit: i64) -> Result<Vec<Receipt>> {
        Ok(table::local_between(&mut self.cx.store.read().await?, since, until, limit).await?)
    }

    /// Where an event stands in the stream; `None` when it is not there or belongs to another room.
    async fn place(&self, room_nid: i64, event_id: &EventId) -> Result<Option<Place>> {
        let mut tx = self.cx.store.read().await?;
        let Some(row) = events::by_ids(&mut tx, &[event_id.as_str()]).await?.pop() else { return Ok(None) };
        if row.room_nid != room_nid {
            return Ok(None);
        }
        let place = timeline::place_of(&mut tx, row.nid).await?;
        Ok(place.map(|(pos, thread_nid, _)| Place { event_nid: row.nid, pos, thread_nid }))
    }

    /// The root of the thread a receipt is about, 0 for the main timeline. The event it names is of the thread, its root, or
    /// speaks about one of these (a reaction to the root stands in the main timeline, and the thread may be read up to it).
    async fn lane_nid(&self, lane: &Lane, event_id: &EventId, place: Option<Place>) -> Result<i64> {
        let (Some(place), Lane::Thread(root)) = (place, lane) else { return Ok(0) };
        if root == event_id {
            return Ok(place.event_nid);
        }
        let mut tx = self.cx.store.read().await?;
        if let Some((_, root_nid)) = events::nids(&mut tx, &[root.as_str()]).await?.pop()
            && (root_nid == place.thread_nid
                || relations::speaks_about(&mut tx, place.event_nid, root_nid, THREAD_HOPS_MAX).await?)
        {
            return Ok(root_nid);
        }
        Err(Error::InvalidParam("the event is not in the thread that thread_id names".to_owned()))
    }
}

/// True when both events are known and the new one stands before the stored one.
async fn is_behind(tx: &mut Tx, new: Option<Place>, stored: &str) -> Result<bool> {
    let Some(new) = new else { return Ok(false) };
    let Some((_, stored_nid)) = events::nids(tx, &[stored]).await?.pop() else { return Ok(false) };
    let stored = timeline::place_of(tx, stored_nid).await?;
    Ok(stored.is_some_and(|(pos, _, _)| new.pos < pos))
}
