//! Table `receipts`: the furthest event each user has read, per room, kind and thread; and what reading does to the tables
//! `read_marks` and `push_items`.
//!
//! | column | meaning |
//! |---|---|
//! | room_nid, user_nid, kind, thread | key; `kind` is `m.read` or `m.read.private`; `thread` is empty for an unthreaded receipt, `main`, or a thread root's event id |
//! | event_id | the event read; may be one we do not have when another server sent the receipt |
//! | ts | the reader's clock, milliseconds since 1970 |
//! | pos | position of the last change |

use crate::{Result, Tx, numbers::json_list};

/// A receipt.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Receipt {
    /// The room.
    pub room_nid: i64,
    /// The reader.
    pub user_nid: i64,
    /// `m.read` or `m.read.private`.
    pub kind: String,
    /// Empty, `main`, or a thread root's event id.
    pub thread: String,
    /// The event read.
    pub event_id: String,
    /// The reader's clock, milliseconds since 1970.
    pub ts: i64,
}

/// What a local reader has read, in terms of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadUpTo {
    /// The reader.
    pub user_nid: i64,
    /// The room.
    pub room_nid: i64,
    /// The event.
    pub event_nid: i64,
    /// Its position.
    pub pos: i64,
}

sql!(
    PUT,
    "
    INSERT INTO receipts (room_nid, user_nid, kind, thread, event_id, ts, pos)
    VALUES ($1, $2, $3, $4, $5, $6, (SELECT next FROM next_position))
    ON CONFLICT (room_nid, user_nid, kind, thread)
    DO UPDATE SET event_id = excluded.event_id, ts = excluded.ts, pos = excluded.pos"
);
sql!(
    ONE,
    "
    SELECT room_nid, user_nid, kind, thread, event_id, ts FROM receipts
    WHERE room_nid = $1 AND user_nid = $2 AND kind = $3 AND thread = $4"
);
sql!(SINCE,
    // A JSON pair is taken apart differently; the rest is the same.
    sqlite: "
        SELECT c.room_nid, c.user_nid, c.kind, c.thread, c.event_id, c.ts
        FROM (SELECT json_extract(value, '$[0]') AS room_nid, json_extract(value, '$[1]') AS since FROM json_each($1)) AS r
        JOIN receipts AS c ON c.room_nid = r.room_nid AND c.pos > r.since AND c.pos <= $2
        WHERE c.kind = 'm.read' OR c.user_nid = $3
        ORDER BY c.room_nid, c.pos",
    postgres: "
        SELECT c.room_nid, c.user_nid, c.kind, c.thread, c.event_id, c.ts
        FROM (SELECT (value::json->>0)::bigint AS room_nid, (value::json->>1)::bigint AS since FROM json_each($1)) AS r
        JOIN receipts AS c ON c.room_nid = r.room_nid AND c.pos > r.since AND c.pos <= $2
        WHERE c.kind = 'm.read' OR c.user_nid = $3
        ORDER BY c.room_nid, c.pos");
sql!(
    LOCAL_BETWEEN,
    "
    SELECT c.room_nid, c.user_nid, c.kind, c.thread, c.event_id, c.ts
    FROM receipts AS c JOIN users AS u ON u.nid = c.user_nid
    WHERE c.pos > $1 AND c.pos <= $2 AND c.kind = 'm.read' AND u.is_local
    ORDER BY c.pos LIMIT $3"
);
sql!(
    BETWEEN,
    "
    SELECT room_nid, user_nid, kind, thread, event_id, ts FROM receipts
    WHERE pos > $1 AND pos <= $2 ORDER BY pos LIMIT $3"
);
sql!(
    MARK_LANE,
    "
    INSERT INTO read_marks (user_nid, room_nid, thread_nid, event_nid, seq)
    VALUES ($1, $2, $3, $4, coalesce((
        SELECT x.seq FROM timeline AS x WHERE x.room_nid = $2 AND x.thread_nid = $3 AND x.pos <= $5
        ORDER BY x.pos DESC LIMIT 1), 0))
    ON CONFLICT (user_nid, room_nid, thread_nid) DO UPDATE SET event_nid = excluded.event_nid, seq = excluded.seq
    WHERE excluded.seq >= read_marks.seq
        AND coalesce((SELECT m.pos FROM timeline AS m WHERE m.event_nid = read_marks.event_nid), 0) <= $5"
);
// Threads with something unread and no newer event than the one read are marked by their count alone; only the others look
// into the timeline. At most $5 threads, those with the newest events first.
sql!(
    MARK_THREADS,
    "
    INSERT INTO read_marks (user_nid, room_nid, thread_nid, event_nid, seq)
    SELECT $1, t.room_nid, t.root_nid, $3, CASE
        WHEN coalesce((SELECT l.pos FROM timeline AS l WHERE l.event_nid = t.last_nid), 0) <= $4 THEN t.notify_seq
        ELSE coalesce((
            SELECT x.seq FROM timeline AS x WHERE x.room_nid = t.room_nid AND x.thread_nid = t.root_nid AND x.pos <= $4
            ORDER BY x.pos DESC LIMIT 1), 0) END
    FROM threads AS t
    LEFT JOIN read_marks AS m ON m.user_nid = $1 AND m.room_nid = t.room_nid AND m.thread_nid = t.root_nid
    WHERE t.room_nid = $2 AND t.notify_seq > coalesce(m.seq, 0)
    ORDER BY t.last_depth DESC, t.last_nid DESC LIMIT $5
    ON CONFLICT (user_nid, room_nid, thread_nid) DO UPDATE SET event_nid = excluded.event_nid, seq = excluded.seq
    WHERE excluded.seq >= read_marks.seq"
);
sql!(
    CLEAR_LANE,
    "
    DELETE FROM push_items WHERE user_nid = $1 AND room_nid = $2 AND thread_nid = $3 AND event_nid IN (
        SELECT p.event_nid FROM push_items AS p JOIN timeline AS t ON t.event_nid = p.event_nid
        WHERE p.user_nid = $1 AND p.room_nid = $2 AND p.thread_nid = $3 AND t.pos <= $4)"
);
sql!(
    CLEAR_ROOM,
    "
    DELETE FROM push_items WHERE user_nid = $1 AND room_nid = $2 AND event_nid IN (
        SELECT p.event_nid FROM push_items AS p JOIN timeline AS t ON t.event_nid = p.event_nid
        WHERE p.user_nid = $1 AND p.room_nid = $2 AND t.pos <= $3)"
);
/// Store a receipt in place of the one before it.
///
/// # Errors
/// The driver's.
pub async fn put(tx: &mut Tx, receipt: &Receipt) -> Result<()> {
    execute!(
        tx,
        PUT,
        receipt.room_nid,
        receipt.user_nid,
        receipt.kind.as_str(),
        receipt.thread.as_str(),
        receipt.event_id.as_str(),
        receipt.ts,
    )?;
    tx.streamed(1);
    Ok(())
}

/// A user's receipt of this kind for this thread.
///
/// # Errors
/// The driver's.
pub async fn one(tx: &mut Tx, room_nid: i64, user_nid: i64, kind: &str, thread: &str) -> Result<Option<Receipt>> {
    fetch_optional!(tx, ONE, room_nid, user_nid, kind, thread)
}

/// Receipts in rooms that `reader_nid` may see: for each (room, since), those with `since < pos <= until`; ordered by room,
/// then position. Private receipts only of the reader. One statement, however many rooms.
///
/// # Errors
/// The driver's.
pub async fn since(tx: &mut Tx, rooms: &[(i64, i64)], until: i64, reader_nid: i64) -> Result<Vec<Receipt>> {
    fetch_all!(tx, SINCE, json_list(rooms), until, reader_nid)
}

/// Public receipts of our own users with `since < pos <= until`, at most `limit`, in order: what other servers are told.
///
/// # Errors
/// The driver's.
pub async fn local_between(tx: &mut Tx, since: i64, until: i64, limit: i64) -> Result<Vec<Receipt>> {
    fetch_all!(tx, LOCAL_BETWEEN, since, until, limit)
}

/// Receipts of all rooms and users with `since < pos <= until`, at most `limit`, in order; private ones too.
///
/// # Errors
/// The driver's.
pub async fn between(tx: &mut Tx, since: i64, until: i64, limit: i64) -> Result<Vec<Receipt>> {
    fetch_all!(tx, BETWEEN, since, until, limit)
}

/// One lane (0: the main timeline, else a thread's root) is read up to an event: move its mark, never back, and drop what
/// was still to be noticed there.
///
/// # Errors
/// The driver's.
pub async fn read_lane(tx: &mut Tx, up_to: ReadUpTo, thread_nid: i64) -> Result<()> {
    let ReadUpTo { user_nid, room_nid, event_nid, pos } = up_to;
    execute!(tx, MARK_LANE, user_nid, room_nid, thread_nid, event_nid, pos)?;
    execute!(tx, CLEAR_LANE, user_nid, room_nid, thread_nid, pos)?;
    Ok(())
}

/// A user enters a room with this event: nothing that was there before is unread to them. Of threads, `threads_max` are marked.
/// The main timeline's mark is the caller's, who knows its count.
///
/// # Errors
/// The driver's.
pub async fn enter_room(tx: &mut Tx, user_nid: i64, room_nid: i64, event_nid: i64, threads_max: i64) -> Result<()> {
    execute!(tx, MARK_THREADS, user_nid, room_nid, event_nid, i64::MAX, threads_max)?;
    execute!(tx, CLEAR_ROOM, user_nid, room_nid, i64::MAX)?;
    Ok(())
}

/// The whole room, threads too, is read up to an event. Of threads with something unread, `threads_max` are marked.
///
/// # Errors
/// The driver's.
pub async fn read_room(tx: &mut Tx, up_to: ReadUpTo, threads_max: i64) -> Result<()> {
    let ReadUpTo { user_nid, room_nid, event_nid, pos } = up_to;
    execute!(tx, MARK_LANE, user_nid, room_nid, 0_i64, event_nid, pos)?;
    execute!(tx, MARK_THREADS, user_nid, room_nid, event_nid, pos, threads_max)?;
    execute!(tx, CLEAR_ROOM, user_nid, room_nid, pos)?;
    Ok(())
}
