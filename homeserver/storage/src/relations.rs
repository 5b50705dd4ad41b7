//! Tables `relations` and `threads`: which event says something about which other.
//!
//! A row of `relations` may name a parent we do not have. A redaction is kept as a relation of type [`REDACTION`], so that it
//! takes effect when its target arrives later. `threads` has a row for each root with at least one reply.

use crate::{Result, Tx, numbers::json_list};

/// The relation of a redaction to its target. An event whose `rel_type` is empty has no relation, so none can claim it.
pub const REDACTION: &str = "";

/// A relation to store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRelation {
    /// What is spoken about.
    pub parent_id: String,
    /// Who speaks.
    pub child_nid: i64,
    /// The room.
    pub room_nid: i64,
    /// `rel_type`, or [`REDACTION`].
    pub rel_type: String,
    /// The child's event type.
    pub kind: String,
    /// The child's sender.
    pub sender_nid: i64,
    /// What a reaction says.
    pub key: Option<String>,
}

/// A thread's newest state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct Thread {
    /// Its first event.
    pub root_nid: i64,
    /// The room.
    pub room_nid: i64,
    /// The newest reply.
    pub last_nid: i64,
    /// The newest reply's depth.
    pub last_depth: i64,
    /// Replies.
    pub count: i64,
    /// Replies that notify by default.
    pub notify_seq: i64,
}

/// A relation as read: who, of which type, with which key.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Relation {
    /// What is spoken about.
    pub parent_id: String,
    /// Who speaks.
    pub child_nid: i64,
    /// `rel_type`.
    pub rel_type: String,
    /// The child's event type.
    pub kind: String,
    /// The child's sender.
    pub sender_nid: i64,
    /// What a reaction says.
    pub key: Option<String>,
}

sql!(
    PUT,
    "
    INSERT INTO relations (parent_id, child_nid, room_nid, rel_type, kind, sender_nid, key)
    VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (parent_id, child_nid) DO NOTHING"
);
sql!(REMOVE_CHILD, "DELETE FROM relations WHERE child_nid = $1");
sql!(
    OF,
    "
    SELECT parent_id, child_nid, rel_type, kind, sender_nid, key FROM relations
    WHERE parent_id IN (SELECT value FROM json_each($1)) ORDER BY child_nid"
);
sql!(
    PAGE_BACK,
    "
    SELECT r.parent_id, r.child_nid, r.rel_type, r.kind, r.sender_nid, r.key
    FROM relations AS r JOIN events AS e ON e.nid = r.child_nid
    WHERE r.parent_id = $1 AND e.visible AND ($2 = '' OR r.rel_type = $2) AND ($3 = '' OR r.kind = $3)
        AND r.rel_type <> '' AND (e.depth, e.nid) < ($4, $5)
    ORDER BY e.depth DESC, e.nid DESC LIMIT $6"
);
sql!(
    PAGE_FORWARD,
    "
    SELECT r.parent_id, r.child_nid, r.rel_type, r.kind, r.sender_nid, r.key
    FROM relations AS r JOIN events AS e ON e.nid = r.child_nid
    WHERE r.parent_id = $1 AND e.visible AND ($2 = '' OR r.rel_type = $2) AND ($3 = '' OR r.kind = $3)
        AND r.rel_type <> '' AND (e.depth, e.nid) > ($4, $5)
    ORDER BY e.depth, e.nid LIMIT $6"
);
sql!(
    THREAD_PUT,
    "
    INSERT INTO threads (root_nid, room_nid, last_nid, last_depth, count, notify_seq) VALUES ($1, $2, $3, $4, $5, $6)
    ON CONFLICT (root_nid) DO UPDATE SET last_nid = excluded.last_nid, last_depth = excluded.last_depth,
        count = excluded.count, notify_seq = excluded.notify_seq"
);
sql!(
    THREADS,
    "
    SELECT root_nid, room_nid, last_nid, last_depth, count, notify_seq FROM threads
    WHERE root_nid IN (SELECT CAST(value AS BIGINT) FROM json_each($1))"
);
sql!(
    THREADS_OF_ROOM,
    "
    SELECT root_nid, room_nid, last_nid, last_depth, count, notify_seq FROM threads
    WHERE room_nid = $1 AND (last_depth, last_nid) < ($2, $3) ORDER BY last_depth DESC, last_nid DESC LIMIT $4"
);
sql!(
    THREADS_OF_USER,
    "
    SELECT t.root_nid, t.room_nid, t.last_nid, t.last_depth, t.count, t.notify_seq
    FROM threads AS t JOIN events AS e ON e.nid = t.root_nid
    WHERE t.room_nid = $1 AND (t.last_depth, t.last_nid) < ($2, $3) AND (e.sender_nid = $4 OR EXISTS (
        SELECT 1 FROM relations AS r
        WHERE r.parent_id = e.event_id AND r.sender_nid = $4 AND r.rel_type = 'm.thread'))
    ORDER BY t.last_depth DESC, t.last_nid DESC LIMIT $5"
);
// What speaks about what speaks about the event, to a depth; the filters are for what is returned, not for the way there.
sql!(
    TREE_BACK,
    "
    WITH RECURSIVE tree (child_nid, level) AS (
        SELECT r.child_nid, 1 FROM relations AS r WHERE r.parent_id = $1 AND r.rel_type <> ''
        UNION
        SELECT r.child_nid, t.level + 1 FROM tree AS t JOIN events AS p ON p.nid = t.child_nid
        JOIN relations AS r ON r.parent_id = p.event_id AND r.rel_type <> '' WHERE t.level < $7)
    SELECT r.parent_id, r.child_nid, r.rel_type, r.kind, r.sender_nid, r.key
    FROM relations AS r JOIN events AS e ON e.nid = r.child_nid
    WHERE r.child_nid IN (SELECT child_nid FROM tree) AND e.visible AND ($2 = '' OR r.rel_type = $2)
        AND ($3 = '' OR r.kind = $3) AND r.rel_type <> '' AND (e.depth, e.nid) < ($4, $5)
    ORDER BY e.depth DESC, e.nid DESC LIMIT $6"
);
sql!(
    TREE_FORWARD,
    "
    WITH RECURSIVE tree (child_nid, level) AS (
        SELECT r.child_nid, 1 FROM relations AS r WHERE r.parent_id = $1 AND r.rel_type <> ''
        UNION
        SELECT r.child_nid, t.level + 1 FROM tree AS t JOIN events AS p ON p.nid = t.child_nid
        JOIN relations AS r ON r.parent_id = p.event_id AND r.rel_type <> '' WHERE t.level < $7)
    SELECT r.parent_id, r.child_nid, r.rel_type, r.kind, r.sender_nid, r.key
    FROM relations AS r JOIN events AS e ON e.nid = r.child_nid
    WHERE r.child_nid IN (SELECT child_nid FROM tree) AND e.visible AND ($2 = '' OR r.rel_type = $2)
        AND ($3 = '' OR r.kind = $3) AND r.rel_type <> '' AND (e.depth, e.nid) > ($4, $5)
    ORDER BY e.depth, e.nid LIMIT $6"
);
sql!(
    SPEAKS_ABOUT,
    "
    WITH RECURSIVE told (nid, level) AS (
        SELECT e.nid, 1 FROM relations AS r JOIN events AS e ON e.event_id = r.parent_id AND e.room_nid = r.room_nid
        WHERE r.child_nid = $1 AND r.rel_type <> ''
        UNION
        SELECT e.nid, t.level + 1 FROM told AS t JOIN relations AS r ON r.child_nid = t.nid AND r.rel_type <> ''
        JOIN events AS e ON e.event_id = r.parent_id AND e.room_nid = r.room_nid WHERE t.level < $3)
    SELECT nid FROM told WHERE nid = $2 LIMIT 1"
);
sql!(TAKES_PART, "
    SELECT r.child_nid FROM relations AS r WHERE r.parent_id = $1 AND r.sender_nid = $2 AND r.rel_type = 'm.thread' LIMIT 1");
sql!(
    SAYS,
    "
    SELECT child_nid FROM relations
    WHERE parent_id = $1 AND sender_nid = $2 AND rel_type = $3 AND kind = $4 AND key = $5 LIMIT 1"
);

/// Whether a user has said this about an event already: the same reaction.
///
/// # Errors
/// The driver's.
pub async fn says(tx: &mut Tx, parent_id: &str, user_nid: i64, rel_type: &str, kind: &str, key: &str) -> Result<bool> {
    let row: Option<(i64,)> = fetch_optional!(tx, SAYS, parent_id, user_nid, rel_type, kind, key)?;
    Ok(row.is_some())
}

/// Store a relation.
///
/// # Errors
/// The driver's.
pub async fn put(tx: &mut Tx, r: &NewRelation) -> Result<()> {
    execute!(
        tx,
        PUT,
        r.parent_id.as_str(),
        r.child_nid,
        r.room_nid,
        r.rel_type.as_str(),
        r.kind.as_str(),
        r.sender_nid,
        r.key.as_deref(),
    )?;
    Ok(())
}

/// Forget what a redacted event said about others.
///
/// # Errors
/// The driver's.
pub async fn remove_child(tx: &mut Tx, child_nid: i64) -> Result<()> {
    execute!(tx, REMOVE_CHILD, child_nid)?;
    Ok(())
}

/// All relations to these events, redactions included, oldest first.
///
/// # Errors
/// The driver's.
pub async fn of<T: serde::Serialize>(tx: &mut Tx, parent_ids: &[T]) -> Result<Vec<Relation>> {
    fetch_all!(tx, OF, json_list(parent_ids))
}

/// Which children to page through.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// What they speak about.
    pub parent_id: &'a str,
    /// Only this `rel_type`, if any.
    pub rel_type: Option<&'a str>,
    /// Only this event type, if any.
    pub kind: Option<&'a str>,
    /// How far from the event: 1 for what speaks about it directly.
    pub levels: i64,
}

/// A page of children from a place on, at most `limit`; newest first when `back`.
///
/// # Errors
/// The driver's.
pub async fn page(
    tx: &mut Tx,
    wanted: Wanted<'_>,
    from: crate::events::Place,
    back: bool,
    limit: i64,
) -> Result<Vec<Relation>> {
    let (rel_type, kind) = (wanted.rel_type.unwrap_or(""), wanted.kind.unwrap_or(""));
    let (parent_id, levels) = (wanted.parent_id, wanted.levels);
    match (levels > 1, back) {
        (false, true) => fetch_all!(tx, PAGE_BACK, parent_id, rel_type, kind, from.0, from.1, limit),
        (false, false) => fetch_all!(tx, PAGE_FORWARD, parent_id, rel_type, kind, from.0, from.1, limit),
        (true, true) => fetch_all!(tx, TREE_BACK, parent_id, rel_type, kind, from.0, from.1, limit, levels),
        (true, false) => fetch_all!(tx, TREE_FORWARD, parent_id, rel_type, kind, from.0, from.1, limit, levels),
    }
}

/// Store a thread's newest state.
///
/// # Errors
/// The driver's.
pub async fn put_thread(tx: &mut Tx, t: &Thread) -> Result<()> {
    execute!(tx, THREAD_PUT, t.root_nid, t.room_nid, t.last_nid, t.last_depth, t.count, t.notify_seq)?;
    Ok(())
}

/// Threads by root.
///
/// # Errors
/// The driver's.
pub async fn threads(tx: &mut Tx, roots: &[i64]) -> Result<Vec<Thread>> {
    fetch_all!(tx, THREADS, json_list(roots))
}

/// A room's threads with their newest reply before a place, the newest first.
///
/// # Errors
/// The driver's.
pub async fn threads_of_room(
    tx: &mut Tx,
    room_nid: i64,
    before: crate::events::Place,
    limit: i64,
) -> Result<Vec<Thread>> {
    fetch_all!(tx, THREADS_OF_ROOM, room_nid, before.0, before.1, limit)
}

/// As [`threads_of_room`], but only threads a user began or wrote in.
///
/// # Errors
/// The driver's.
pub async fn threads_of_user(
    tx: &mut Tx,
    room_nid: i64,
    before: crate::events::Place,
    user_nid: i64,
    limit: i64,
) -> Result<Vec<Thread>> {
    fetch_all!(tx, THREADS_OF_USER, room_nid, before.0, before.1, user_nid, limit)
}

/// Whether an event speaks about another of its room, or about one that does, at most `levels` away.
///
/// # Errors
/// The driver's.
pub async fn speaks_about(tx: &mut Tx, child_nid: i64, about_nid: i64, levels: i64) -> Result<bool> {
    let row: Option<(i64,)> = fetch_optional!(tx, SPEAKS_ABOUT, child_nid, about_nid, levels)?;
    Ok(row.is_some())
}

/// Whether a user wrote in a thread.
///
/// # Errors
/// The driver's.
pub async fn takes_part(tx: &mut Tx, root_id: &str, user_nid: i64) -> Result<bool> {
    let row: Option<(i64,)> = fetch_optional!(tx, TAKES_PART, root_id, user_nid)?;
    Ok(row.is_some())
}
