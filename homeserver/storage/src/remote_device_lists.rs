//! Table `remote_device_lists`: how good our copy of another server's user's devices is. The copies themselves stand in
//! `device_keys` and `cross_signing_keys`.
//!
//! | column | meaning |
//! |---|---|
//! | user_nid | key |
//! | stream_id | the last update the copy contains; NULL when the answer it came from named none |
//! | is_stale | true when the copy must not be used |
//! | ver | counts what made the copy stale: a fetch that began before is not a fresh copy |

use crate::{Result, Tx, numbers::json_list};

/// How good our copy of a user's devices is.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct RemoteDeviceList {
    /// The user.
    pub user_nid: i64,
    /// The last update it contains.
    pub stream_id: Option<i64>,
    /// True when it must not be used.
    pub is_stale: bool,
    /// Counts what made it stale.
    pub ver: i64,
}

sql!(
    OF_USERS,
    "
    SELECT user_nid, stream_id, is_stale, ver FROM remote_device_lists
    WHERE user_nid IN (SELECT CAST(value AS BIGINT) FROM json_each($1))"
);
sql!(
    EXPECT,
    "
    INSERT INTO remote_device_lists (user_nid, stream_id, is_stale, ver)
    SELECT CAST(value AS BIGINT), NULL, TRUE, 0 FROM json_each($1) WHERE TRUE
    ON CONFLICT (user_nid) DO NOTHING"
);
sql!(
    OUTDATE,
    "
    UPDATE remote_device_lists SET is_stale = TRUE, ver = ver + 1
    WHERE user_nid IN (SELECT CAST(value AS BIGINT) FROM json_each($1))"
);
sql!(
    OUTDATE_IN_ROOM,
    "
    UPDATE remote_device_lists SET is_stale = TRUE, ver = ver + 1
    WHERE user_nid IN (SELECT user_nid FROM members WHERE room_nid = $1 AND membership = 'join')"
);
sql!(
    FRESH,
    "
    UPDATE remote_device_lists SET is_stale = FALSE, stream_id = $3 WHERE user_nid = $1 AND ver = $2"
);
sql!(
    ADVANCE,
    "
    UPDATE remote_device_lists SET stream_id = $3, ver = ver + 1
    WHERE user_nid = $1 AND NOT is_stale AND stream_id = $2"
);

/// How good our copies are; users without one are absent.
///
/// # Errors
/// The driver's.
pub async fn of_users(tx: &mut Tx, users: &[i64]) -> Result<Vec<RemoteDeviceList>> {
    fetch_all!(tx, OF_USERS, json_list(users))
}

/// Say, before fetching, that copies of these users are to be made.
///
/// # Errors
/// The driver's.
pub async fn expect(tx: &mut Tx, users: &[i64]) -> Result<()> {
    execute!(tx, EXPECT, json_list(users))?;
    Ok(())
}

/// Say that the copies of these users must not be used any more.
///
/// # Errors
/// The driver's.
pub async fn outdate(tx: &mut Tx, users: &[i64]) -> Result<()> {
    execute!(tx, OUTDATE, json_list(users))?;
    Ok(())
}

/// The same for all users joined to a room.
///
/// # Errors
/// The driver's.
pub async fn outdate_in_room(tx: &mut Tx, room_nid: i64) -> Result<()> {
    execute!(tx, OUTDATE_IN_ROOM, room_nid)?;
    Ok(())
}

/// Say that the copy just written is fresh, unless something made it stale since `ver` was read. True when it is.
///
/// # Errors
/// The driver's.
pub async fn mark_fresh(tx: &mut Tx, user_nid: i64, ver: i64, stream_id: Option<i64>) -> Result<bool> {
    Ok(execute!(tx, FRESH, user_nid, ver, stream_id)? == 1)
}

/// Move a fresh copy from update `from` to update `to`. False when it was not there: it has to be fetched anew.
///
/// # Errors
/// The driver's.
pub async fn advance(tx: &mut Tx, user_nid: i64, from: i64, to: i64) -> Result<bool> {
    Ok(execute!(tx, ADVANCE, user_nid, from, to)? == 1)
}
