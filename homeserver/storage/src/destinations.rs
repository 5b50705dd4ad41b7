//! Table `destinations`: how reaching each other server goes, and how far it has been told.
//!
//! | column | meaning |
//! |---|---|
//! | retry_at | not before this time (ms) is it asked again; 0 when all is well |
//! | fails | failures in a row |
//! | last_ok | when it last answered, ms |
//! | out_pos | all our events up to this position have been delivered or noted in `destination_rooms` |
//! | device_pos | the same for changes of our users' devices |
//!
//! `destination_rooms` holds, while a server does not answer, the newest event of each room it has yet to be told of.
//! `delivery_leases` says which instance delivers to which share of the servers, until when (ms).

use crate::{Result, Tx, numbers::json_list};

/// How reaching a server goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct Health {
    /// The server.
    pub server: String,
    /// Not before this time, ms.
    pub retry_at: i64,
    /// Failures in a row.
    pub fails: i64,
    /// Last answer, ms.
    pub last_ok: i64,
}

/// How far a server has been told.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Cursor {
    /// The server.
    pub server: String,
    /// Our events up to here have been delivered or noted; 0 for a server never told anything.
    pub out_pos: i64,
    /// Changes of devices up to here have been delivered.
    pub device_pos: i64,
}

sql!(FAILING, "SELECT server, retry_at, fails, last_ok FROM destinations WHERE fails > 0");
sql!(HEALTH_OF, "SELECT server, retry_at, fails, last_ok FROM destinations WHERE server = $1 AND fails > 0");
sql!(
    SET_HEALTH,
    "
    INSERT INTO destinations (server, retry_at, fails, last_ok, out_pos, device_pos) VALUES ($1, $2, $3, $4, 0, 0)
    ON CONFLICT (server) DO UPDATE SET retry_at = excluded.retry_at, fails = excluded.fails, last_ok = excluded.last_ok"
);

sql!(CURSORS, "SELECT server, out_pos, device_pos FROM destinations WHERE out_pos > 0");
sql!(
    SET_CURSOR,
    "
    INSERT INTO destinations (server, retry_at, fails, last_ok, out_pos, device_pos) VALUES ($1, 0, 0, 0, $2, $3)
    ON CONFLICT (server) DO UPDATE SET out_pos = excluded.out_pos, device_pos = excluded.device_pos"
);
sql!(
    ADVANCE,
    "
    UPDATE destinations SET out_pos = $2, device_pos = $2
    WHERE out_pos < $2 AND server IN (SELECT value FROM json_each($1))"
);
sql!(
    LAG_PUT,
    "
    INSERT INTO destination_rooms (server, room_nid, pos) VALUES ($1, $2, $3)
    ON CONFLICT (server, room_nid) DO UPDATE SET pos = excluded.pos WHERE destination_rooms.pos < excluded.pos"
);
sql!(LAG, "SELECT room_nid, pos FROM destination_rooms WHERE server = $1 ORDER BY pos LIMIT $2");
sql!(LAGGING, "SELECT DISTINCT server FROM destination_rooms");
sql!(LAG_DONE, "DELETE FROM destination_rooms WHERE server = $1 AND room_nid = $2 AND pos <= $3");
sql!(
    LEASE,
    "
    INSERT INTO delivery_leases (share, owner, until)
    SELECT CAST(value AS BIGINT), $2, $3 FROM json_each($1) WHERE TRUE
    ON CONFLICT (share) DO UPDATE SET owner = excluded.owner, until = excluded.until
    WHERE delivery_leases.owner = excluded.owner OR delivery_leases.until < $4
    RETURNING share"
);

/// How reaching a server goes, if it fails.
///
/// # Errors
/// The driver's.
pub async fn health_of(tx: &mut Tx, server: &str) -> Result<Option<Health>> {
    fetch_optional!(tx, HEALTH_OF, server)
}

/// How far each server has been told.
///
/// # Errors
/// The driver's.
pub async fn cursors(tx: &mut Tx) -> Result<Vec<Cursor>> {
    fetch_all!(tx, CURSORS)
}

/// Store how far a server has been told.
///
/// # Errors
/// The driver's.
pub async fn set_cursor(tx: &mut Tx, cursor: &Cursor) -> Result<()> {
    execute!(tx, SET_CURSOR, cursor.server.as_str(), cursor.out_pos, cursor.device_pos)?;
    Ok(())
}

/// Servers that have been told everything up to `pos`.
///
/// # Errors
/// The driver's.
pub async fn advance<T: serde::Serialize>(tx: &mut Tx, servers: &[T], pos: i64) -> Result<()> {
    execute!(tx, ADVANCE, json_list(servers), pos)?;
    Ok(())
}

/// Note the newest event of a room that a server has yet to be told of.
///
/// # Errors
/// The driver's.
pub async fn note(tx: &mut Tx, server: &str, room_nid: i64, pos: i64) -> Result<()> {
    execute!(tx, LAG_PUT, server, room_nid, pos)?;
    Ok(())
}

/// What a server has yet to be told of: (room, position of its newest event), the oldest first, at most `limit`.
///
/// # Errors
/// The driver's.
pub async fn noted(tx: &mut Tx, server: &str, limit: i64) -> Result<Vec<(i64, i64)>> {
    fetch_all!(tx, LAG, server, limit)
}

/// Servers with rooms they have yet to be told of.
///
/// # Errors
/// The driver's.
pub async fn lagging(tx: &mut Tx) -> Result<Vec<String>> {
    let rows: Vec<(String,)> = fetch_all!(tx, LAGGING)?;
    Ok(rows.into_iter().map(|(server,)| server).collect())
}

/// A server was told of a room's events up to `pos`.
///
/// # Errors
/// The driver's.
pub async fn told(tx: &mut Tx, server: &str, room_nid: i64, pos: i64) -> Result<()> {
    execute!(tx, LAG_DONE, server, room_nid, pos)?;
    Ok(())
}

/// Take or keep shares of the deliveries until `until` (ms). Returns those taken; another instance has the others.
///
/// # Errors
/// The driver's.
pub async fn lease(tx: &mut Tx, shares: &[i64], owner: &str, until: i64, now: i64) -> Result<Vec<i64>> {
    let rows: Vec<(i64,)> = fetch_all!(tx, LEASE, json_list(shares), owner, until, now)?;
    Ok(rows.into_iter().map(|(share,)| share).collect())
}

/// Servers that did not answer last time.
///
/// # Errors
/// The driver's.
pub async fn failing(tx: &mut Tx) -> Result<Vec<Health>> {
    fetch_all!(tx, FAILING)
}

/// Store how reaching a server goes.
///
/// # Errors
/// The driver's.
pub async fn set_health(tx: &mut Tx, health: &Health) -> Result<()> {
    execute!(tx, SET_HEALTH, health.server.as_str(), health.retry_at, health.fails, health.last_ok)?;
    Ok(())
}
