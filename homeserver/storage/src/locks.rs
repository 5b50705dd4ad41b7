//! Locks that last as long as a transaction.
//!
//! SQLite has one writer at a time, so there they cost a look-up and hold nothing.

use crate::{Result, Tx};

sql!(USER,
    sqlite: "SELECT nid FROM users WHERE nid = $1",
    postgres: "SELECT nid FROM users WHERE nid = $1 FOR NO KEY UPDATE");

/// Wait until no other transaction holds this user, and hold them until the end of this one. For what is read, changed and
/// written back: tags, keys, versions. Take it first; a transaction holds one user at most.
///
/// # Errors
/// The driver's.
pub async fn user(tx: &mut Tx, user_nid: i64) -> Result<()> {
    let _: Option<(i64,)> = fetch_optional!(tx, USER, user_nid)?;
    Ok(())
}
