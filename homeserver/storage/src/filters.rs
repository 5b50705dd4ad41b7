//! Table `filters`: what clients want to see in sync. A filter never changes; its id is a digest of its body.

use crate::{Result, Tx};

sql!(
    PUT,
    "
    INSERT INTO filters (user_nid, filter_id, body) VALUES ($1, $2, $3)
    ON CONFLICT (user_nid, filter_id) DO NOTHING"
);
sql!(ONE, "SELECT body FROM filters WHERE user_nid = $1 AND filter_id = $2");

/// Store a filter; the same one again changes nothing.
///
/// # Errors
/// The driver's.
pub async fn put(tx: &mut Tx, user_nid: i64, filter_id: &str, body: &str) -> Result<()> {
    execute!(tx, PUT, user_nid, filter_id, body)?;
    Ok(())
}

/// A user's filter, JSON.
///
/// # Errors
/// The driver's.
pub async fn one(tx: &mut Tx, user_nid: i64, filter_id: &str) -> Result<Option<String>> {
    let row: Option<(String,)> = fetch_optional!(tx, ONE, user_nid, filter_id)?;
    Ok(row.map(|(body,)| body))
}
