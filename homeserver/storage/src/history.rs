//! Reading a room's past in pages: events in the order of their places, with what the stream knows of them. No table of its own.

use crate::{
    Result, Tx,
    events::{self, Place},
    numbers::json_list,
};

/// Events looked through for what came before a position and has a later place. A branch of a room that is longer than this hides
/// what it stands beside.
pub const LOOKED_THROUGH_MAX: i64 = 1_000;

/// An event of a page.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Row {
    /// Sender's device and transaction id, while they are remembered.
    pub txn: Option<String>,
    /// The event itself.
    #[sqlx(flatten)]
    pub event: events::Row,
}

sql!(
    BACK,
    "
    SELECT t.txn, e.nid, e.event_id, e.room_nid, e.depth, e.flags, e.state_nid, e.state_after_nid, e.auth, e.codec, e.body
    FROM events AS e LEFT JOIN timeline AS t ON t.event_nid = e.nid
    WHERE e.room_nid = $1 AND e.visible AND (e.depth, e.nid) < ($2, $3) AND (t.pos IS NULL OR t.pos < $4)
    ORDER BY e.depth DESC, e.nid DESC LIMIT $5"
);
sql!(
    FORWARD,
    "
    SELECT t.txn, e.nid, e.event_id, e.room_nid, e.depth, e.flags, e.state_nid, e.state_after_nid, e.auth, e.codec, e.body
    FROM events AS e LEFT JOIN timeline AS t ON t.event_nid = e.nid
    WHERE e.room_nid = $1 AND e.visible AND (e.depth, e.nid) >= ($2, $3)
    ORDER BY e.depth, e.nid LIMIT $4"
);
sql!(
    PLACE_AT,
    "
    SELECT e.depth, e.nid FROM timeline AS t JOIN events AS e ON e.nid = t.event_nid
    WHERE t.room_nid = $1 AND t.pos <= $2 ORDER BY t.pos DESC LIMIT 1"
);
sql!(
    LATEST_BEFORE,
    "
    SELECT n.depth, n.nid FROM (
        SELECT e.depth, e.nid FROM events AS e
        WHERE e.room_nid = $1 AND e.visible AND (e.depth, e.nid) > ($2, $3) ORDER BY e.depth, e.nid LIMIT $5
    ) AS n JOIN timeline AS t ON t.event_nid = n.nid
    WHERE t.pos < $4 ORDER BY n.depth DESC, n.nid DESC LIMIT 1"
);
sql!(
    TXNS,
    "
    SELECT event_nid, txn FROM timeline
    WHERE txn IS NOT NULL AND event_nid IN (SELECT CAST(value AS BIGINT) FROM json_each($1))"
);

/// At most `limit` events before `gap`, the newest first; of those that came over the stream only those that came before position
/// `until`.
///
/// # Errors
/// The driver's.
pub async fn back(tx: &mut Tx, room_nid: i64, gap: Place, until: i64, limit: i64) -> Result<Vec<Row>> {
    fetch_all!(tx, BACK, room_nid, gap.0, gap.1, until, limit)
}

/// At most `limit` events from `gap` on, the oldest first.
///
/// # Errors
/// The driver's.
pub async fn forward(tx: &mut Tx, room_nid: i64, gap: Place, limit: i64) -> Result<Vec<Row>> {
    fetch_all!(tx, FORWARD, room_nid, gap.0, gap.1, limit)
}

/// The place of a room's newest event at position `pos`.
///
/// # Errors
/// The driver's.
pub async fn place_at(tx: &mut Tx, room_nid: i64, pos: i64) -> Result<Option<Place>> {
    fetch_optional!(tx, PLACE_AT, room_nid, pos)
}

/// The latest place behind `place` of an event that came over the stream before position `until`, among the next
/// [`LOOKED_THROUGH_MAX`] events.
///
/// # Errors
/// The driver's.
pub async fn latest_before(tx: &mut Tx, room_nid: i64, place: Place, until: i64) -> Result<Option<Place>> {
    fetch_optional!(tx, LATEST_BEFORE, room_nid, place.0, place.1, until, LOOKED_THROUGH_MAX)
}

/// Devices and transaction ids with which events were sent, where they are remembered.
///
/// # Errors
/// The driver's.
pub async fn txns(tx: &mut Tx, event_nids: &[i64]) -> Result<Vec<(i64, String)>> {
    fetch_all!(tx, TXNS, json_list(event_nids))
}
