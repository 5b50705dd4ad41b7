//! Table `account_data`: what a user's clients keep with us, for all rooms or for one.
//!
//! | column | meaning |
//! |---|---|
//! | user_nid, room_nid, kind | key; room 0 is the user's global data, kind the event type |
//! | body | the content, JSON; `{}` says that it was deleted, for clients that had it |
//! | pos | position of the last change |

use crate::{Result, Tx, numbers::json_list};

/// One piece of account data.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct AccountData {
    /// The room, or 0.
    pub room_nid: i64,
    /// The event type.
    pub kind: String,
    /// The content, JSON.
    pub body: String,
}

sql!(
    PUT,
    "
    INSERT INTO account_data (user_nid, room_nid, kind, body, pos)
    VALUES ($1, $2, $3, $4, (SELECT next FROM next_position))
    ON CONFLICT (user_nid, room_nid, kind) DO UPDATE SET body = excluded.body, pos = excluded.pos"
);
sql!(ONE, "SELECT body FROM account_data WHERE user_nid = $1 AND room_nid = $2 AND kind = $3");
sql!(
    OF_KIND,
    "
    SELECT user_nid, body FROM account_data WHERE kind = $1 AND room_nid = 0
        AND user_nid IN (SELECT CAST(value AS BIGINT) FROM json_each($2))"
);
sql!(
    CHANGED,
    "
    SELECT room_nid, kind, body FROM account_data WHERE user_nid = $1 AND pos > $2 AND pos <= $3 ORDER BY pos"
);
sql!(
    ALL,
    "
    SELECT room_nid, kind, body FROM account_data WHERE user_nid = $1 AND body <> '{}' AND pos <= $2
    ORDER BY room_nid, kind"
);
sql!(
    IN_ROOMS,
    "
    SELECT room_nid, kind, body FROM account_data WHERE user_nid = $1 AND body <> '{}' AND pos <= $3
        AND room_nid IN (SELECT CAST(value AS BIGINT) FROM json_each($2))
    ORDER BY room_nid, kind"
);
sql!(REMOVE_ALL, "DELETE FROM account_data WHERE user_nid = $1");

/// Store a piece of account data. `room_nid` 0 is global; a body of `{}` deletes.
///
/// # Errors
/// The driver's.
pub async fn put(tx: &mut Tx, user_nid: i64, room_nid: i64, kind: &str, body: &str) -> Result<()> {
    execute!(tx, PUT, user_nid, room_nid, kind, body)?;
    tx.streamed(1);
    Ok(())
}

/// A piece of account data, `{}` when it was deleted.
///
/// # Errors
/// The driver's.
pub async fn one(tx: &mut Tx, user_nid: i64, room_nid: i64, kind: &str) -> Result<Option<String>> {
    let row: Option<(String,)> = fetch_optional!(tx, ONE, user_nid, room_nid, kind)?;
    Ok(row.map(|(body,)| body))
}

/// Global account data of one kind of several users: (user, content).
///
/// # Errors
/// The driver's.
pub async fn of_kind(tx: &mut Tx, kind: &str, users: &[i64]) -> Result<Vec<(i64, String)>> {
    fetch_all!(tx, OF_KIND, kind, json_list(users))
}

/// What changed in `since < pos <= until`, globally and in all rooms, deletions too, in order.
///
/// # Errors
/// The driver's.
pub async fn changed(tx: &mut Tx, user_nid: i64, since: i64, until: i64) -> Result<Vec<AccountData>> {
    fetch_all!(tx, CHANGED, user_nid, since, until)
}

/// All that is there at `until`, globally and in all rooms.
///
/// # Errors
/// The driver's.
pub async fn all(tx: &mut Tx, user_nid: i64, until: i64) -> Result<Vec<AccountData>> {
    fetch_all!(tx, ALL, user_nid, until)
}

/// All that is there at `until` in these rooms (0: globally), for rooms that are new to a client.
///
/// # Errors
/// The driver's.
pub async fn in_rooms(tx: &mut Tx, user_nid: i64, rooms: &[i64], until: i64) -> Result<Vec<AccountData>> {
    fetch_all!(tx, IN_ROOMS, user_nid, json_list(rooms), until)
}

/// Remove everything of a user whose account is erased. Nobody is told.
///
/// # Errors
/// The driver's.
pub async fn remove_all(tx: &mut Tx, user_nid: i64) -> Result<()> {
    execute!(tx, REMOVE_ALL, user_nid)?;
    Ok(())
}
