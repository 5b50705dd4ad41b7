//! Tables `timeline`, `state_changes`, `read_marks`, `push_items`: what an accepted event does to its room, and the
//! stream in which clients learn of it.
//!
//! | column of timeline | meaning |
//! |---|---|
//! | pos | the event's position, given inside the commit, gapless |
//! | flags | sum of [`flags`] |
//! | thread_nid | root of the thread the event is in, 0 for the main timeline |
//! | seq | events of this lane (room's main timeline, or one thread) so far that notify by default, this one included |
//! | txn | sender's device and transaction id, while a repetition must be recognised |

mod append;

use crate::{Result, Tx, events, numbers::json_list};

pub use self::append::{append, append_stored};

/// Bits of the column `flags`.
pub mod flags {
    /// Current state changed with this event.
    pub const STATE_CHANGES: i64 = 1;
    /// Made by this server: to be delivered to the others in the room.
    pub const LOCAL: i64 = 2;
    /// Notifies members with default rules.
    pub const NOTIFIES: i64 = 4;
    /// Somebody has a row of `push_items` for it.
    pub const EXCEPTIONS: i64 = 8;
    /// Something that came before it was not here when it came: history is missing between it and what stands before it.
    pub const AFTER_GAP: i64 = 16;
}

/// A row of the stream to write.
#[derive(Debug, Clone)]
pub struct NewRow {
    /// The event.
    pub event_nid: i64,
    /// Its room.
    pub room_nid: i64,
    /// See [`flags`].
    pub flags: i64,
    /// Root of its thread, or 0.
    pub thread_nid: i64,
    /// Notifying events of its lane so far.
    pub seq: i64,
    /// Sender's device and transaction id.
    pub txn: Option<String>,
}

/// An event in the stream.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Row {
    /// Its position.
    pub pos: i64,
    /// See [`flags`].
    pub timeline_flags: i64,
    /// Root of its thread, or 0.
    pub thread_nid: i64,
    /// Notifying events of its lane so far.
    pub seq: i64,
    /// Sender's device and transaction id.
    pub txn: Option<String>,
    /// The event itself.
    #[sqlx(flatten)]
    pub event: events::Row,
}

/// A change of one entry of a room's current state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct StateChange {
    /// The event in the timeline that caused it.
    pub cause_nid: i64,
    /// The room.
    pub room_nid: i64,
    /// Which entry.
    pub state_key_nid: i64,
    /// The event there now; `None` when the entry went away.
    pub event_nid: Option<i64>,
    /// The event there before.
    pub prev_event_nid: Option<i64>,
}

/// A [`StateChange`] with its position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct StateChangeRow {
    /// Position of the event that caused it.
    pub pos: i64,
    /// The change.
    #[sqlx(flatten)]
    pub change: StateChange,
}

/// How far a user has read a lane of a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct ReadMark {
    /// The user.
    pub user_nid: i64,
    /// The room.
    pub room_nid: i64,
    /// Root of the thread, or 0.
    pub thread_nid: i64,
    /// The event read last.
    pub event_nid: i64,
    /// Notifying events of the lane up to it.
    pub seq: i64,
}

sql!(NEWEST, "SELECT pos FROM stream WHERE name = 'events'");
sql!(
    BY_TXN,
    "
    SELECT e.event_id FROM timeline AS t JOIN events AS e ON e.nid = t.event_nid WHERE t.txn = $1"
);
sql!(FORGET_TXNS, "UPDATE timeline SET txn = NULL WHERE txn IS NOT NULL AND pos < $1");
sql!(WINDOWS,
    // A JSON pair is taken apart differently; the rest is the same.
    sqlite: "
        SELECT t.pos, t.flags AS timeline_flags, t.thread_nid, t.seq, t.txn,
            e.nid, e.event_id, e.room_nid, e.depth, e.flags, e.state_nid, e.state_after_nid, e.auth, e.codec, e.body
        FROM (SELECT json_extract(value, '$[0]') AS room_nid, json_extract(value, '$[1]') AS since FROM json_each($1)) AS r
        JOIN timeline AS t ON t.room_nid = r.room_nid AND t.pos <= $2 AND t.pos > max(r.since, coalesce((
            SELECT x.pos FROM timeline AS x WHERE x.room_nid = r.room_nid AND x.pos <= $2
            ORDER BY x.pos DESC LIMIT 1 OFFSET $3), 0))
        JOIN events AS e ON e.nid = t.event_nid
        ORDER BY t.room_nid, t.pos",
    postgres: "
        SELECT t.pos, t.flags AS timeline_flags, t.thread_nid, t.seq, t.txn,
            e.nid, e.event_id, e.room_nid, e.depth, e.flags, e.state_nid, e.state_after_nid, e.auth, e.codec, e.body
        FROM (SELECT (value::json->>0)::bigint AS room_nid, (value::json->>1)::bigint AS since FROM json_each($1)) AS r
        JOIN LATERAL (
            SELECT * FROM timeline AS x WHERE x.room_nid = r.room_nid AND x.pos <= $2 AND x.pos > r.since
            ORDER BY x.pos DESC LIMIT $3) AS t ON TRUE
        JOIN events AS e ON e.nid = t.event_nid
        ORDER BY t.room_nid, t.pos");
sql!(
    BETWEEN,
    "
    SELECT t.pos, t.flags AS timeline_flags, t.thread_nid, t.seq, t.txn,
        e.nid, e.event_id, e.room_nid, e.depth, e.flags, e.state_nid, e.state_after_nid, e.auth, e.codec, e.body
    FROM timeline AS t JOIN events AS e ON e.nid = t.event_nid
    WHERE t.pos > $1 AND t.pos <= $2 ORDER BY t.pos LIMIT $3"
);
// Only since the reader's own member event: what was before they may have no right to see.
sql!(
    BEFORE_FOR,
    "
    SELECT t.pos, t.flags AS timeline_flags, t.thread_nid, t.seq, t.txn,
        e.nid, e.event_id, e.room_nid, e.depth, e.flags, e.state_nid, e.state_after_nid, e.auth, e.codec, e.body
    FROM timeline AS t
    JOIN members AS m ON m.room_nid = t.room_nid AND m.user_nid = $1 AND m.membership = 'join'
    JOIN timeline AS j ON j.event_nid = m.event_nid AND j.pos < t.pos
    JOIN events AS e ON e.nid = t.event_nid
    WHERE t.pos < $2 ORDER BY t.pos DESC LIMIT $3"
);
sql!(
    LOCAL_BETWEEN,
    "
    SELECT pos, event_nid, room_nid FROM timeline WHERE pos > $1 AND pos <= $2 AND flags & 2 = 2 ORDER BY pos LIMIT $3"
);
sql!(
    AT,
    "
    SELECT pos, event_nid FROM timeline WHERE pos IN (SELECT CAST(value AS BIGINT) FROM json_each($1)) ORDER BY pos"
);
sql!(CHANGED_ROOMS, "SELECT room_nid, max(pos) AS pos FROM timeline WHERE pos > $1 AND pos <= $2 GROUP BY room_nid");
// The redacted are found by their redactions; an outlier that found its place has its row here like a new event.
sql!(
    CHANGED_EVENTS,
    "
    SELECT e.nid, e.flags FROM timeline AS t JOIN events AS e ON e.nid = t.event_nid WHERE t.pos > $1 AND t.pos <= $2
    UNION
    SELECT e.nid, e.flags FROM timeline AS t
    JOIN relations AS r ON r.child_nid = t.event_nid AND r.rel_type = ''
    JOIN events AS e ON e.event_id = r.parent_id
    WHERE t.pos > $1 AND t.pos <= $2"
);
sql!(PLACE_OF, "SELECT pos, thread_nid, seq FROM timeline WHERE event_nid = $1");
sql!(
    SEQ_AT,
    "
    SELECT seq FROM timeline WHERE room_nid = $1 AND thread_nid = $2 AND pos <= $3 ORDER BY pos DESC LIMIT 1"
);
sql!(STATE_CHANGE_PUT,
    // A JSON list is taken apart differently.
    sqlite: "
        INSERT INTO state_changes (cause_nid, room_nid, state_key_nid, event_nid, prev_event_nid)
        SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
            json_extract(value, '$[3]'), json_extract(value, '$[4]') FROM json_each($1)",
    postgres: "
        INSERT INTO state_changes (cause_nid, room_nid, state_key_nid, event_nid, prev_event_nid)
        SELECT (value::json->>0)::bigint, (value::json->>1)::bigint, (value::json->>2)::bigint,
            (value::json->>3)::bigint, (value::json->>4)::bigint FROM json_each($1)");
sql!(STATE_CHANGES, sqlite: "
    SELECT c.pos, c.cause_nid, c.room_nid, c.state_key_nid, c.event_nid, c.prev_event_nid
    FROM (SELECT json_extract(value, '$[0]') AS room_nid, json_extract(value, '$[1]') AS since FROM json_each($1)) AS r
    JOIN state_changes AS c ON c.room_nid = r.room_nid AND c.pos > r.since AND c.pos <= $2
    ORDER BY c.pos",
    // A JSON pair is taken apart differently.
    postgres: "
    SELECT c.pos, c.cause_nid, c.room_nid, c.state_key_nid, c.event_nid, c.prev_event_nid
    FROM (SELECT (value::json->>0)::bigint AS room_nid, (value::json->>1)::bigint AS since FROM json_each($1)) AS r
    JOIN state_changes AS c ON c.room_nid = r.room_nid AND c.pos > r.since AND c.pos <= $2
    ORDER BY c.pos");
sql!(
    KEY_CHANGES,
    "
    SELECT pos, cause_nid, room_nid, state_key_nid, event_nid, prev_event_nid FROM state_changes
    WHERE state_key_nid = $1 AND pos > $2 AND pos <= $3 ORDER BY pos"
);
sql!(READ_MARK_PUT,
    // A JSON list is taken apart differently.
    sqlite: "
        INSERT INTO read_marks (user_nid, room_nid, thread_nid, event_nid, seq)
        SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
            json_extract(value, '$[3]'), json_extract(value, '$[4]') FROM json_each($1) WHERE TRUE
        ON CONFLICT (user_nid, room_nid, thread_nid) DO UPDATE SET event_nid = excluded.event_nid, seq = excluded.seq
        WHERE excluded.seq >= read_marks.seq",
    postgres: "
        INSERT INTO read_marks (user_nid, room_nid, thread_nid, event_nid, seq)
        SELECT (value::json->>0)::bigint, (value::json->>1)::bigint, (value::json->>2)::bigint,
            (value::json->>3)::bigint, (value::json->>4)::bigint FROM json_each($1)
        ON CONFLICT (user_nid, room_nid, thread_nid) DO UPDATE SET event_nid = excluded.event_nid, seq = excluded.seq
        WHERE excluded.seq >= read_marks.seq");
sql!(
    READ_MARKS,
    "
    SELECT user_nid, room_nid, thread_nid, event_nid, seq FROM read_marks
    WHERE user_nid = $1 AND room_nid IN (SELECT CAST(value AS BIGINT) FROM json_each($2))"
);

/// A notification beyond what the room's sequence counts: a highlight, or a user whose rules differ from the default.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct PushItem {
    /// Who is notified.
    pub user_nid: i64,
    /// The room.
    pub room_nid: i64,
    /// Of which event.
    pub event_nid: i64,
    /// Root of its thread, or 0.
    pub thread_nid: i64,
    /// What it adds to the count of notifications the room's sequence gives: -1, 0 or 1.
    pub notify: i64,
    /// Whether it counts as a highlight.
    pub highlight: bool,
    /// The push actions, JSON.
    pub actions: String,
}

sql!(PUSH_ITEM_PUT,
    // A JSON list is taken apart differently.
    sqlite: "
        INSERT INTO push_items (user_nid, room_nid, event_nid, thread_nid, notify, highlight, actions)
        SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
            json_extract(value, '$[3]'), json_extract(value, '$[4]'), json_extract(value, '$[5]'),
            json_extract(value, '$[6]') FROM json_each($1) WHERE TRUE
        ON CONFLICT (user_nid, room_nid, event_nid) DO NOTHING",
    postgres: "
        INSERT INTO push_items (user_nid, room_nid, event_nid, thread_nid, notify, highlight, actions)
        SELECT (value::json->>0)::bigint, (value::json->>1)::bigint, (value::json->>2)::bigint,
            (value::json->>3)::bigint, (value::json->>4)::bigint, (value::json->>5)::boolean, value::json->>6
        FROM json_each($1)
        ON CONFLICT (user_nid, room_nid, event_nid) DO NOTHING");
sql!(
    PUSH_ITEMS_READ,
    "
    DELETE FROM push_items WHERE user_nid = $1 AND room_nid = $2 AND thread_nid = $3
        AND event_nid IN (SELECT event_nid FROM timeline WHERE room_nid = $2 AND pos <= $4)"
);

/// Store notifications, in one statement.
///
/// # Errors
/// The driver's.
pub async fn put_push_items(tx: &mut Tx, items: &[PushItem]) -> Result<()> {
    if items.is_empty() {
        return Ok(());
    }
    let rows: Vec<_> = items
        .iter()
        .map(|i| (i.user_nid, i.room_nid, i.event_nid, i.thread_nid, i.notify, i.highlight, i.actions.as_str()))
        .collect();
    execute!(tx, PUSH_ITEM_PUT, json_list(&rows))?;
    Ok(())
}

/// Forget a user's notifications of a lane up to a position.
///
/// # Errors
/// The driver's.
pub async fn push_items_read(tx: &mut Tx, user_nid: i64, room_nid: i64, thread_nid: i64, pos: i64) -> Result<u64> {
    execute!(tx, PUSH_ITEMS_READ, user_nid, room_nid, thread_nid, pos)
}

/// The newest position anybody was given.
///
/// # Errors
/// The driver's.
pub async fn newest(tx: &mut Tx) -> Result<i64> {
    let row: Option<(i64,)> = fetch_optional!(tx, NEWEST)?;
    Ok(row.map_or(0, |(pos,)| pos))
}

/// The event a device sent with this transaction id.
///
/// # Errors
/// The driver's.
pub async fn by_txn(tx: &mut Tx, txn: &str) -> Result<Option<String>> {
    let row: Option<(String,)> = fetch_optional!(tx, BY_TXN, txn)?;
    Ok(row.map(|(event_id,)| event_id))
}

/// Forget transaction ids of events before `pos`. Returns how many.
///
/// # Errors
/// The driver's.
pub async fn forget_txns(tx: &mut Tx, pos: i64) -> Result<u64> {
    execute!(tx, FORGET_TXNS, pos)
}

/// The newest events of rooms: for each (room, since), at most `limit` with `since < pos <= until`; ordered by room, then
/// position. One statement, however many rooms.
///
/// # Errors
/// The driver's.
pub async fn windows(tx: &mut Tx, rooms: &[(i64, i64)], until: i64, limit: i64) -> Result<Vec<Row>> {
    fetch_all!(tx, WINDOWS, json_list(rooms), until, limit)
}

/// Events of all rooms with `since < pos <= until`, at most `limit`, in order.
///
/// # Errors
/// The driver's.
pub async fn between(tx: &mut Tx, since: i64, until: i64, limit: i64) -> Result<Vec<Row>> {
    fetch_all!(tx, BETWEEN, since, until, limit)
}

/// Events the other servers are told by us in `since < pos <= until`, at most `limit`, in order: (position, event, room).
///
/// # Errors
/// The driver's.
pub async fn local_between(tx: &mut Tx, since: i64, until: i64, limit: i64) -> Result<Vec<(i64, i64, i64)>> {
    fetch_all!(tx, LOCAL_BETWEEN, since, until, limit)
}

/// The events at these positions: (position, event), in order.
///
/// # Errors
/// The driver's.
pub async fn at(tx: &mut Tx, positions: &[i64]) -> Result<Vec<(i64, i64)>> {
    fetch_all!(tx, AT, json_list(positions))
}

/// Events of the rooms a user is joined to with `pos < before`, since they joined, the newest first, at most `limit`.
///
/// # Errors
/// The driver's.
pub async fn before_for(tx: &mut Tx, user_nid: i64, before: i64, limit: i64) -> Result<Vec<Row>> {
    fetch_all!(tx, BEFORE_FOR, user_nid, before, limit)
}

/// Rooms with events in `since < pos <= until`, each with the position of its newest there.
///
/// # Errors
/// The driver's.
pub async fn changed_rooms(tx: &mut Tx, since: i64, until: i64) -> Result<Vec<(i64, i64)>> {
    fetch_all!(tx, CHANGED_ROOMS, since, until)
}

/// Events that came or changed with what is in the stream in `since < pos <= until`, with their flags now.
///
/// # Errors
/// The driver's.
pub async fn changed_events(tx: &mut Tx, since: i64, until: i64) -> Result<Vec<(i64, i64)>> {
    fetch_all!(tx, CHANGED_EVENTS, since, until)
}

/// An event's place in the stream: (position, thread, count of its lane).
///
/// # Errors
/// The driver's.
pub async fn place_of(tx: &mut Tx, event_nid: i64) -> Result<Option<(i64, i64, i64)>> {
    fetch_optional!(tx, PLACE_OF, event_nid)
}

/// Notifying events of a lane up to position `pos`.
///
/// # Errors
/// The driver's.
pub async fn seq_at(tx: &mut Tx, room_nid: i64, thread_nid: i64, pos: i64) -> Result<i64> {
    let row: Option<(i64,)> = fetch_optional!(tx, SEQ_AT, room_nid, thread_nid, pos)?;
    Ok(row.map_or(0, |(seq,)| seq))
}

/// Store changes of current state, in one statement, in the transaction that appends their cause, before it is appended.
///
/// # Errors
/// The driver's.
pub async fn put_state_changes(tx: &mut Tx, changes: &[StateChange]) -> Result<()> {
    if changes.is_empty() {
        return Ok(());
    }
    let rows: Vec<_> =
        changes.iter().map(|c| (c.cause_nid, c.room_nid, c.state_key_nid, c.event_nid, c.prev_event_nid)).collect();
    execute!(tx, STATE_CHANGE_PUT, json_list(&rows))?;
    Ok(())
}

/// Changes of current state of rooms: for each (room, since), those with `since < pos <= until`, in order.
///
/// # Errors
/// The driver's.
pub async fn state_changes(tx: &mut Tx, rooms: &[(i64, i64)], until: i64) -> Result<Vec<StateChangeRow>> {
    fetch_all!(tx, STATE_CHANGES, json_list(rooms), until)
}

/// Changes of one state key in all rooms (a user's memberships) with `since < pos <= until`, in order.
///
/// # Errors
/// The driver's.
pub async fn key_changes(tx: &mut Tx, state_key_nid: i64, since: i64, until: i64) -> Result<Vec<StateChangeRow>> {
    fetch_all!(tx, KEY_CHANGES, state_key_nid, since, until)
}

/// Move read marks forward; a mark never moves back.
///
/// # Errors
/// The driver's.
pub async fn put_read_marks(tx: &mut Tx, marks: &[ReadMark]) -> Result<()> {
    if marks.is_empty() {
        return Ok(());
    }
    let rows: Vec<_> = marks.iter().map(|m| (m.user_nid, m.room_nid, m.thread_nid, m.event_nid, m.seq)).collect();
    execute!(tx, READ_MARK_PUT, json_list(&rows))?;
    Ok(())
}

/// A user's read marks in rooms.
///
/// # Errors
/// The driver's.
pub async fn read_marks(tx: &mut Tx, user_nid: i64, rooms: &[i64]) -> Result<Vec<ReadMark>> {
    fetch_all!(tx, READ_MARKS, user_nid, json_list(rooms))
}
