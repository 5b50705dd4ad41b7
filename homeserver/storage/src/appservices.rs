//! Table `appservice_cursors`: how far each application service has been told of the stream. One row each, none for an event.
//!
//! | column | meaning |
//! |---|---|
//! | pos | everything up to here was acknowledged |
//! | until | end of the transaction under way: it is repeated with exactly these events until acknowledged; NULL when none is |
//! | txn | number of the transaction under way, or of the last one |
//! | lease_owner, lease_until | the instance that tells this application service, and until when (milliseconds since 1970) |

use crate::{Result, Tx};

/// A row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct Cursor {
    /// Everything up to here was acknowledged.
    pub pos: i64,
    /// End of the transaction under way.
    pub until: Option<i64>,
    /// Its number.
    pub txn: i64,
}

sql!(
    ADD,
    "
    INSERT INTO appservice_cursors (appservice_id, pos, txn, lease_until) VALUES ($1, $2, $3, 0)
    ON CONFLICT (appservice_id) DO NOTHING"
);
sql!(CURSOR, "SELECT pos, until, txn FROM appservice_cursors WHERE appservice_id = $1");
sql!(
    LEASE,
    "
    UPDATE appservice_cursors SET lease_owner = $2, lease_until = $4
    WHERE appservice_id = $1 AND (lease_owner = $2 OR lease_until <= $3)"
);
sql!(
    MOVE,
    "
    UPDATE appservice_cursors SET pos = $3, until = $4, txn = $5
    WHERE appservice_id = $1 AND lease_owner = $2"
);
sql!(ROOM_ALIASES, "SELECT alias FROM aliases WHERE room_id = $1");

/// Begin to follow the stream at `pos`, if the application service is new. Transactions are numbered from `txn`: a number that
/// a database lost and made anew would not give again.
///
/// # Errors
/// The driver's.
pub async fn add(tx: &mut Tx, appservice_id: &str, pos: i64, txn: i64) -> Result<()> {
    execute!(tx, ADD, appservice_id, pos, txn)?;
    Ok(())
}

/// How far it is.
///
/// # Errors
/// The driver's.
pub async fn cursor(tx: &mut Tx, appservice_id: &str) -> Result<Option<Cursor>> {
    fetch_optional!(tx, CURSOR, appservice_id)
}

/// Become (or stay) the instance that tells it, until `until_ms`. False while another one is.
///
/// # Errors
/// The driver's.
pub async fn lease(tx: &mut Tx, appservice_id: &str, owner: &str, now_ms: i64, until_ms: i64) -> Result<bool> {
    Ok(execute!(tx, LEASE, appservice_id, owner, now_ms, until_ms)? == 1)
}

/// Store how far it is. False when another instance took over.
///
/// # Errors
/// The driver's.
pub async fn store(tx: &mut Tx, appservice_id: &str, owner: &str, cursor: Cursor) -> Result<bool> {
    Ok(execute!(tx, MOVE, appservice_id, owner, cursor.pos, cursor.until, cursor.txn)? == 1)
}

/// The aliases of a room on this server.
///
/// # Errors
/// The driver's.
pub async fn aliases_of(tx: &mut Tx, room_id: &str) -> Result<Vec<String>> {
    let rows: Vec<(String,)> = fetch_all!(tx, ROOM_ALIASES, room_id)?;
    Ok(rows.into_iter().map(|(alias,)| alias).collect())
}
