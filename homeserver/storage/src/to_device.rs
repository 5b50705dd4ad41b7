//! Tables `to_device`, `to_device_outbound` and `to_device_seen`: messages from device to device.
//!
//! | column of `to_device` | meaning |
//! |---|---|
//! | nid | number given by us |
//! | user_nid, device_id | for whom; a local device |
//! | body | the event: `sender`, `type`, `content`, JSON |
//! | pos | position; a device reads in this order and acknowledges by it |
//!
//! `to_device_outbound` holds the content of an `m.direct_to_device` EDU for each server, until that server has it.
//! `to_device_seen` remembers which messages of which origin were taken, by day.

use crate::{Result, Tx, numbers::json_list, store::Connection, text::Bound as _};

/// A message for one local device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMessage {
    /// Number of [`crate::numbers::Family::ToDevice`].
    pub nid: i64,
    /// The device's user.
    pub user_nid: i64,
    /// The device.
    pub device_id: String,
    /// The event, JSON.
    pub body: String,
}

sql!(
    SEEN,
    "
    INSERT INTO to_device_seen (origin, message_id, day) VALUES ($1, $2, $3)
    ON CONFLICT (origin, message_id) DO NOTHING"
);
sql!(FORGET_SEEN, "DELETE FROM to_device_seen WHERE day < $1");
sql!(
    PUT,
    "
    INSERT INTO to_device (nid, user_nid, device_id, body, pos)
    VALUES ($1, $2, $3, $4, (SELECT next FROM next_position))"
);
// SQLite gives positions a statement at a time; PostgreSQL takes the whole list in one round trip.
sql!(PUT_ALL,
    sqlite: "SELECT 1",
    postgres: "
        INSERT INTO to_device (nid, user_nid, device_id, body)
        SELECT * FROM UNNEST($1::bigint[], $2::bigint[], $3::text[], $4::text[])");
sql!(
    CROWDED,
    "
    SELECT user_nid, device_id, count(*) AS waiting FROM to_device
    WHERE user_nid IN (SELECT CAST(value AS BIGINT) FROM json_each($1))
    GROUP BY user_nid, device_id HAVING count(*) > $2"
);
sql!(
    DROP_OLDEST,
    "
    DELETE FROM to_device WHERE nid IN (
        SELECT nid FROM to_device WHERE user_nid = $1 AND device_id = $2 ORDER BY pos LIMIT $3)"
);
// One row stands for all that the device has received already, so that the caller knows whether there is any to delete.
sql!(
    READ,
    "
    SELECT pos, body FROM (SELECT pos, '' AS body FROM to_device
        WHERE user_nid = $1 AND device_id = $2 AND pos <= $3 LIMIT 1) AS received
    UNION ALL
    SELECT pos, body FROM (SELECT pos, body FROM to_device
        WHERE user_nid = $1 AND device_id = $2 AND pos > $3 AND pos <= $4 ORDER BY pos LIMIT $5) AS waiting
    ORDER BY pos"
);
sql!(ACKNOWLEDGE, "DELETE FROM to_device WHERE user_nid = $1 AND device_id = $2 AND pos <= $3");
sql!(
    QUEUE,
    "
    INSERT INTO to_device_outbound (nid, server_nid, body, pos) VALUES ($1, $2, $3, (SELECT next FROM next_position))"
);
sql!(
    QUEUED,
    "
    SELECT pos, body FROM to_device_outbound WHERE server_nid = $1 AND pos IS NOT NULL ORDER BY pos LIMIT $2"
);
sql!(QUEUED_SERVERS, "SELECT DISTINCT server_nid FROM to_device_outbound");
sql!(DELIVERED, "DELETE FROM to_device_outbound WHERE server_nid = $1 AND pos <= $2");
sql!(
    DROP_OLDEST_QUEUED,
    "
    DELETE FROM to_device_outbound WHERE server_nid = $1 AND pos <= (
        SELECT pos FROM to_device_outbound WHERE server_nid = $1 AND pos IS NOT NULL ORDER BY pos DESC LIMIT 1 OFFSET $2)"
);

/// Remember that a message came. False when it came before. `day`: days since 1970.
///
/// # Errors
/// The driver's.
pub async fn first_seen(tx: &mut Tx, origin: &str, message_id: &str, day: i64) -> Result<bool> {
    Ok(execute!(tx, SEEN, origin, message_id, day)? == 1)
}

/// Forget which messages came before `day` (days since 1970). Returns how many.
///
/// # Errors
/// The driver's.
pub async fn forget_seen(tx: &mut Tx, day: i64) -> Result<u64> {
    execute!(tx, FORGET_SEEN, day)
}

/// Store messages for local devices.
///
/// # Errors
/// The driver's.
pub async fn put(tx: &mut Tx, messages: &[NewMessage]) -> Result<()> {
    if messages.is_empty() {
        return Ok(());
    }
    if tx.is_postgres() {
        if let Connection::Postgres(connection) = tx.connection() {
            sqlx::query(PUT_ALL.postgres)
                .bind(messages.iter().map(|m| m.nid).collect::<Vec<_>>())
                .bind(messages.iter().map(|m| m.user_nid).collect::<Vec<_>>())
                .bind(messages.iter().map(|m| m.device_id.clone().kept()).collect::<Vec<_>>())
                .bind(messages.iter().map(|m| m.body.as_str()).collect::<Vec<_>>())
                .execute(connection)
                .await?;
        }
    } else {
        for m in messages {
            execute!(tx, PUT, m.nid, m.user_nid, m.device_id.as_str(), m.body.as_str())?;
        }
    }
    tx.streamed(messages.len() as u64);
    Ok(())
}

/// Devices of `users` with more than `len_max` waiting messages: (user, device, messages).
///
/// # Errors
/// The driver's.
pub async fn crowded(tx: &mut Tx, users: &[i64], len_max: i64) -> Result<Vec<(i64, String, i64)>> {
    fetch_all!(tx, CROWDED, json_list(users), len_max)
}

/// Drop the oldest `count` messages of a device. Those of the running transaction are the newest.
///
/// # Errors
/// The driver's.
pub async fn drop_oldest(tx: &mut Tx, user_nid: i64, device_id: &str, count: i64) -> Result<u64> {
    execute!(tx, DROP_OLDEST, user_nid, device_id, count)
}

/// A device's messages in `since < pos <= until`, at most `limit`, in order: (position, event). Before them one row with a
/// position up to `since` and no event when such are to be deleted.
///
/// # Errors
/// The driver's.
pub async fn read(
    tx: &mut Tx,
    user_nid: i64,
    device_id: &str,
    since: i64,
    until: i64,
    limit: i64,
) -> Result<Vec<(i64, String)>> {
    fetch_all!(tx, READ, user_nid, device_id, since, until, limit)
}

/// Delete what a device has received: everything up to `pos`. Returns how many.
///
/// # Errors
/// The driver's.
pub async fn acknowledge(tx: &mut Tx, user_nid: i64, device_id: &str, pos: i64) -> Result<u64> {
    execute!(tx, ACKNOWLEDGE, user_nid, device_id, pos)
}

/// Queue an EDU's content for another server.
///
/// # Errors
/// The driver's.
pub async fn queue(tx: &mut Tx, nid: i64, server_nid: i64, body: &str) -> Result<()> {
    execute!(tx, QUEUE, nid, server_nid, body)?;
    tx.streamed(1);
    Ok(())
}

/// The first EDUs that wait for a server, at most `limit`, in order: (position, content).
///
/// # Errors
/// The driver's.
pub async fn queued(tx: &mut Tx, server_nid: i64, limit: i64) -> Result<Vec<(i64, String)>> {
    fetch_all!(tx, QUEUED, server_nid, limit)
}

/// Servers for which EDUs wait, for the start.
///
/// # Errors
/// The driver's.
pub async fn queued_servers(tx: &mut Tx) -> Result<Vec<i64>> {
    let rows: Vec<(i64,)> = fetch_all!(tx, QUEUED_SERVERS)?;
    Ok(rows.into_iter().map(|(nid,)| nid).collect())
}

/// Delete what a server has received: everything up to `pos`.
///
/// # Errors
/// The driver's.
pub async fn delivered(tx: &mut Tx, server_nid: i64, pos: i64) -> Result<u64> {
    execute!(tx, DELIVERED, server_nid, pos)
}

/// Drop the oldest EDUs that wait for a server, all but the newest `len_max`. Returns how many.
///
/// # Errors
/// The driver's.
pub async fn drop_oldest_queued(tx: &mut Tx, server_nid: i64, len_max: i64) -> Result<u64> {
    execute!(tx, DROP_OLDEST_QUEUED, server_nid, len_max)
}
