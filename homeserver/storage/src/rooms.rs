//! Tables `rooms` and `room_facts`.
//!
//! `rooms` is a room's head, one narrow row that every event of the room moves:
//!
//! | column | meaning |
//! |---|---|
//! | head_ver | counts the moves; writing means compare-and-set on it |
//! | heads | forward extremities, JSON `[[nid, event_id, depth, own], …]` |
//! | state_nid | snapshot of the current state |
//! | depth | greatest depth seen |
//! | notify_seq | events of the main timeline so far that notify by default |
//!
//! `room_facts` holds what lists of rooms show, taken from current state whenever it changes.

use crate::{Error, Result, Tx, numbers::json_list};

/// A room's head as stored.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Head {
    /// The room's number.
    pub nid: i64,
    /// The room's id.
    pub room_id: String,
    /// The room version.
    pub version: String,
    /// Counts the moves of this row.
    pub head_ver: i64,
    /// JSON list of [`Extremity`].
    pub heads: String,
    /// Current state.
    pub state_nid: i64,
    /// Greatest depth.
    pub depth: i64,
    /// Events that notified by default so far, threads apart.
    pub notify_seq: i64,
    /// True while members are still missing after a fast join.
    pub is_partial: bool,
}

/// A room's head with the position of the newest event that moved it.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Placed {
    /// The head.
    #[sqlx(flatten)]
    pub head: Head,
    /// Position of the room's newest event, 0 without one.
    pub last_pos: i64,
}

/// A forward extremity: number, event id, depth, whether it is ours.
pub type Extremity = (i64, String, u64, bool);

impl Head {
    /// The forward extremities.
    ///
    /// # Errors
    /// [`Error::Inconsistent`] when the column is not what we write.
    pub fn extremities(&self) -> Result<Vec<Extremity>> {
        serde_json::from_str(&self.heads).map_err(|_| Error::Inconsistent {
            table: "rooms",
            key: self.room_id.clone(),
            what: "heads are not a list of extremities",
        })
    }
}

/// The move of a room's head that a transaction makes.
#[derive(Debug, Clone)]
pub struct Advance {
    /// The room.
    pub nid: i64,
    /// What `head_ver` must be now.
    pub from: i64,
    /// What it becomes.
    pub to: i64,
    /// JSON list of [`Extremity`].
    pub heads: String,
    /// New current state.
    pub state_nid: i64,
    /// New greatest depth.
    pub depth: i64,
    /// New count of notifying events.
    pub notify_seq: i64,
}

/// What lists of rooms show about a room.
#[derive(Debug, Clone, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct Facts {
    /// The room.
    pub room_nid: i64,
    /// `type` of the create event.
    pub kind: Option<String>,
    /// Sender of the create event.
    pub creator: Option<String>,
    /// Name.
    pub name: Option<String>,
    /// Topic.
    pub topic: Option<String>,
    /// Avatar.
    pub avatar_url: Option<String>,
    /// Canonical alias.
    pub canonical_alias: Option<String>,
    /// `join_rule`.
    pub join_rule: Option<String>,
    /// JSON list of the rooms whose members a restricted join rule admits.
    pub allowed_rooms: Option<String>,
    /// `guest_access`.
    pub guest_access: Option<String>,
    /// `history_visibility`.
    pub history_visibility: Option<String>,
    /// Algorithm of `m.room.encryption`.
    pub encryption: Option<String>,
    /// `replacement_room` of the tombstone.
    pub successor: Option<String>,
    /// Joined members.
    pub joined_count: i64,
    /// Invited members.
    pub invited_count: i64,
    /// Whether the directory lists the room.
    pub is_public: bool,
}

sql!(
    CREATE,
    "
    INSERT INTO rooms (nid, room_id, version, head_ver, heads, state_nid, depth, notify_seq, is_partial)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
    ON CONFLICT (room_id) DO NOTHING"
);
sql!(
    BY_ID,
    "
    SELECT nid, room_id, version, head_ver, heads, state_nid, depth, notify_seq, is_partial
    FROM rooms WHERE room_id = $1"
);
sql!(
    BY_NIDS,
    "
    SELECT nid, room_id, version, head_ver, heads, state_nid, depth, notify_seq, is_partial
    FROM rooms WHERE nid IN (SELECT CAST(value AS BIGINT) FROM json_each($1))"
);
// One statement, so that the head and the position of the newest event are of one moment.
sql!(
    PLACED,
    "
    SELECT r.nid, r.room_id, r.version, r.head_ver, r.heads, r.state_nid, r.depth, r.notify_seq, r.is_partial,
        coalesce((SELECT max(t.pos) FROM timeline AS t WHERE t.room_nid = r.nid), 0) AS last_pos
    FROM rooms AS r WHERE r.nid IN (SELECT CAST(value AS BIGINT) FROM json_each($1))"
);
sql!(
    ADVANCE,
    "
    UPDATE rooms SET head_ver = $3, heads = $4, state_nid = $5, depth = $6, notify_seq = $7
    WHERE nid = $1 AND head_ver = $2"
);
sql!(SET_PARTIAL, "UPDATE rooms SET is_partial = $2 WHERE nid = $1");
sql!(
    FACTS_PUT,
    "
    INSERT INTO room_facts (room_nid, kind, creator, name, topic, avatar_url, canonical_alias, join_rule, allowed_rooms,
        guest_access, history_visibility, encryption, successor, joined_count, invited_count, is_public)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, FALSE)
    ON CONFLICT (room_nid) DO UPDATE SET kind = excluded.kind, creator = excluded.creator, name = excluded.name,
        topic = excluded.topic, avatar_url = excluded.avatar_url, canonical_alias = excluded.canonical_alias,
        join_rule = excluded.join_rule, allowed_rooms = excluded.allowed_rooms, guest_access = excluded.guest_access,
        history_visibility = excluded.history_visibility, encryption = excluded.encryption,
        successor = excluded.successor, joined_count = excluded.joined_count, invited_count = excluded.invited_count"
);
sql!(
    FACTS,
    "
    SELECT room_nid, kind, creator, name, topic, avatar_url, canonical_alias, join_rule, allowed_rooms, guest_access,
        history_visibility, encryption, successor, joined_count, invited_count, is_public
    FROM room_facts WHERE room_nid IN (SELECT CAST(value AS BIGINT) FROM json_each($1))"
);
sql!(SET_PUBLIC, "UPDATE room_facts SET is_public = $2 WHERE room_nid = $1");
sql!(
    PUBLIC_BELOW,
    "
    SELECT room_nid, kind, creator, name, topic, avatar_url, canonical_alias, join_rule, allowed_rooms, guest_access,
        history_visibility, encryption, successor, joined_count, invited_count, is_public
    FROM room_facts WHERE is_public AND (joined_count, room_nid) < ($1, $2)
    ORDER BY joined_count DESC, room_nid DESC LIMIT $3"
);
sql!(
    PUBLIC_ABOVE,
    "
    SELECT room_nid, kind, creator, name, topic, avatar_url, canonical_alias, join_rule, allowed_rooms, guest_access,
        history_visibility, encryption, successor, joined_count, invited_count, is_public
    FROM room_facts WHERE is_public AND (joined_count, room_nid) > ($1, $2)
    ORDER BY joined_count, room_nid LIMIT $3"
);
sql!(PUBLIC_COUNT, "SELECT count(*) AS number FROM room_facts WHERE is_public");

/// Store a new room's head. False when the room exists already.
///
/// # Errors
/// The driver's.
pub async fn create(tx: &mut Tx, head: &Head) -> Result<bool> {
    let rows = execute!(
        tx,
        CREATE,
        head.nid,
        head.room_id.as_str(),
        head.version.as_str(),
        head.head_ver,
        head.heads.as_str(),
        head.state_nid,
        head.depth,
        head.notify_seq,
        head.is_partial,
    )?;
    Ok(rows == 1)
}

/// The head of `room_id`.
///
/// # Errors
/// The driver's.
pub async fn by_id(tx: &mut Tx, room_id: &str) -> Result<Option<Head>> {
    fetch_optional!(tx, BY_ID, room_id)
}

/// The heads of rooms, in no order.
///
/// # Errors
/// The driver's.
pub async fn by_nids(tx: &mut Tx, nids: &[i64]) -> Result<Vec<Head>> {
    fetch_all!(tx, BY_NIDS, json_list(nids))
}

/// Heads of rooms with the positions of their newest events, as they were together.
///
/// # Errors
/// The driver's.
pub async fn placed(tx: &mut Tx, nids: &[i64]) -> Result<Vec<Placed>> {
    fetch_all!(tx, PLACED, json_list(nids))
}

/// Move a room's head if nobody else moved it. False when somebody did: reload, recompute, try again.
///
/// # Errors
/// The driver's.
pub async fn advance(tx: &mut Tx, advance: &Advance) -> Result<bool> {
    let rows = execute!(
        tx,
        ADVANCE,
        advance.nid,
        advance.from,
        advance.to,
        advance.heads.as_str(),
        advance.state_nid,
        advance.depth,
        advance.notify_seq,
    )?;
    Ok(rows == 1)
}

/// Say whether the room still lacks members.
///
/// # Errors
/// The driver's.
pub async fn set_partial(tx: &mut Tx, nid: i64, is_partial: bool) -> Result<()> {
    execute!(tx, SET_PARTIAL, nid, is_partial)?;
    Ok(())
}

/// Store a room's facts. `is_public` is not among them; see [`set_public`].
///
/// # Errors
/// The driver's.
pub async fn put_facts(tx: &mut Tx, facts: &Facts) -> Result<()> {
    execute!(
        tx,
        FACTS_PUT,
        facts.room_nid,
        facts.kind.as_deref(),
        facts.creator.as_deref(),
        facts.name.as_deref(),
        facts.topic.as_deref(),
        facts.avatar_url.as_deref(),
        facts.canonical_alias.as_deref(),
        facts.join_rule.as_deref(),
        facts.allowed_rooms.as_deref(),
        facts.guest_access.as_deref(),
        facts.history_visibility.as_deref(),
        facts.encryption.as_deref(),
        facts.successor.as_deref(),
        facts.joined_count,
        facts.invited_count,
    )?;
    Ok(())
}

/// The facts of rooms, in no order.
///
/// # Errors
/// The driver's.
pub async fn facts(tx: &mut Tx, room_nids: &[i64]) -> Result<Vec<Facts>> {
    fetch_all!(tx, FACTS, json_list(room_nids))
}

/// Say whether the directory lists the room.
///
/// # Errors
/// The driver's.
pub async fn set_public(tx: &mut Tx, room_nid: i64, is_public: bool) -> Result<()> {
    execute!(tx, SET_PUBLIC, room_nid, is_public)?;
    Ok(())
}

/// A place in the directory: joined members, then the room's number.
pub type Rank = (i64, i64);

/// Facts of rooms in the directory, at most `limit`: those after `from`, the largest first, or (`above`) those before it, the
/// smallest first.
///
/// # Errors
/// The driver's.
pub async fn public(tx: &mut Tx, from: Rank, above: bool, limit: i64) -> Result<Vec<Facts>> {
    if above {
        fetch_all!(tx, PUBLIC_ABOVE, from.0, from.1, limit)
    } else {
        fetch_all!(tx, PUBLIC_BELOW, from.0, from.1, limit)
    }
}

/// How many rooms the directory lists.
///
/// # Errors
/// The driver's.
pub async fn public_count(tx: &mut Tx) -> Result<i64> {
    let row: Option<(i64,)> = fetch_optional!(tx, PUBLIC_COUNT)?;
    Ok(row.map_or(0, |(number,)| number))
}
