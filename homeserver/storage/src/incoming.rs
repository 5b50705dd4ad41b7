//! Tables `incoming_transactions` and `incoming_events`: what other servers sent us.
//!
//! An event waits in `incoming_events` from the moment its transaction is acknowledged until it has been judged, so that a crash
//! loses nothing. `incoming_transactions` holds our answer to each transaction while it may be repeated.

use crate::{Result, Tx};

/// An event that waits to be judged.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Waiting {
    /// The room it says it is for.
    pub room_id: String,
    /// Its id.
    pub event_id: String,
    /// The server that sent it to us.
    pub origin: String,
    /// When it came, milliseconds since 1970.
    pub at: i64,
    /// The event as it came.
    pub body: String,
}

sql!(ANSWER, "SELECT answer FROM incoming_transactions WHERE origin = $1 AND txn = $2");
sql!(
    ANSWERED,
    "
    INSERT INTO incoming_transactions (origin, txn, at, answer) VALUES ($1, $2, $3, $4)
    ON CONFLICT (origin, txn) DO NOTHING"
);
sql!(FORGET, "DELETE FROM incoming_transactions WHERE at < $1");
sql!(
    STAGE,
    "
    INSERT INTO incoming_events (room_id, event_id, origin, at, body) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (room_id, event_id) DO NOTHING"
);
sql!(
    WAITING,
    "
    SELECT room_id, event_id, origin, at, body FROM incoming_events WHERE room_id = $1 ORDER BY at LIMIT $2"
);
sql!(ROOMS_WAITING, "SELECT DISTINCT room_id FROM incoming_events WHERE at < $1");
sql!(JUDGED, "DELETE FROM incoming_events WHERE room_id = $1 AND event_id = $2");

/// What we answered to a transaction, if we did.
///
/// # Errors
/// The driver's.
pub async fn answer(tx: &mut Tx, origin: &str, txn: &str) -> Result<Option<String>> {
    let row: Option<(String,)> = fetch_optional!(tx, ANSWER, origin, txn)?;
    Ok(row.map(|(answer,)| answer))
}

/// Remember what we answer to a transaction that came at `at` (ms).
///
/// # Errors
/// The driver's.
pub async fn answered(tx: &mut Tx, origin: &str, txn: &str, at: i64, answer: &str) -> Result<()> {
    execute!(tx, ANSWERED, origin, txn, at, answer)?;
    Ok(())
}

/// Forget answers to transactions that came before `at` (ms). Returns how many.
///
/// # Errors
/// The driver's.
pub async fn forget(tx: &mut Tx, at: i64) -> Result<u64> {
    execute!(tx, FORGET, at)
}

/// Let an event wait. False when it waits already.
///
/// # Errors
/// The driver's.
pub async fn stage(tx: &mut Tx, event: &Waiting) -> Result<bool> {
    let rows = execute!(
        tx,
        STAGE,
        event.room_id.as_str(),
        event.event_id.as_str(),
        event.origin.as_str(),
        event.at,
        event.body.as_str()
    )?;
    Ok(rows == 1)
}

/// Events that wait for a room, the oldest first, at most `limit`.
///
/// # Errors
/// The driver's.
pub async fn waiting(tx: &mut Tx, room_id: &str, limit: i64) -> Result<Vec<Waiting>> {
    fetch_all!(tx, WAITING, room_id, limit)
}

/// Rooms for which events have waited since before `at` (ms).
///
/// # Errors
/// The driver's.
pub async fn rooms_waiting(tx: &mut Tx, at: i64) -> Result<Vec<String>> {
    let rows: Vec<(String,)> = fetch_all!(tx, ROOMS_WAITING, at)?;
    Ok(rows.into_iter().map(|(room_id,)| room_id).collect())
}

/// An event has been judged, or cannot be.
///
/// # Errors
/// The driver's.
pub async fn judged(tx: &mut Tx, room_id: &str, event_id: &str) -> Result<()> {
    execute!(tx, JUDGED, room_id, event_id)?;
    Ok(())
}
