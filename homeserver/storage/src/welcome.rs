//! Table `welcome`: the one row with the token of the link that makes the first administrator.

use crate::{Result, Tx};

/// The number of the only row.
const ROW: i64 = 1;

sql!(PUT, "INSERT INTO welcome (nid, token) VALUES ($1, $2) ON CONFLICT (nid) DO NOTHING");
sql!(TOKEN, "SELECT token FROM welcome WHERE nid = $1 AND used_at IS NULL");
sql!(USE, "UPDATE welcome SET used_at = $3 WHERE nid = $1 AND token = $2 AND used_at IS NULL");
sql!(RESTORE, "UPDATE welcome SET used_at = NULL WHERE nid = $1 AND token = $2");

/// The token, while it has not been used; `fresh` becomes it when there has never been one.
///
/// # Errors
/// The driver's.
pub async fn token(tx: &mut Tx, fresh: &str) -> Result<Option<String>> {
    execute!(tx, PUT, ROW, fresh)?;
    let row: Option<(String,)> = fetch_optional!(tx, TOKEN, ROW)?;
    Ok(row.map(|(token,)| token))
}

/// Whether this is the token and nobody has used it.
///
/// # Errors
/// The driver's.
pub async fn is_open(tx: &mut Tx, token: &str) -> Result<bool> {
    let row: Option<(String,)> = fetch_optional!(tx, TOKEN, ROW)?;
    Ok(row.is_some_and(|(kept,)| kept == token))
}

/// Use the token. False when it is another one or was used before.
///
/// # Errors
/// The driver's.
pub async fn take(tx: &mut Tx, token: &str, now_ms: i64) -> Result<bool> {
    Ok(execute!(tx, USE, ROW, token, now_ms)? == 1)
}

/// What it was used for failed: it may be used again.
///
/// # Errors
/// The driver's.
pub async fn restore(tx: &mut Tx, token: &str) -> Result<()> {
    execute!(tx, RESTORE, ROW, token)?;
    Ok(())
}
