//! Who shares rooms with whom, read from `members` and `state_changes`: it decides whose keys a user is told about.

use crate::{Result, Tx, numbers::json_list};

sql!(
    NOW,
    "
    SELECT DISTINCT b.user_nid FROM members AS a
    JOIN members AS b ON b.room_nid = a.room_nid AND b.membership = 'join'
    WHERE a.user_nid = $1 AND a.membership = 'join'"
);
sql!(
    WITH_LOCAL,
    "
    SELECT DISTINCT r.user_nid FROM members AS r
    JOIN members AS l ON l.room_nid = r.room_nid AND l.membership = 'join'
    JOIN users AS u ON u.nid = l.user_nid AND u.is_local
    WHERE r.user_nid IN (SELECT CAST(value AS BIGINT) FROM json_each($1)) AND r.membership = 'join'"
);
sql!(
    BEGAN,
    "
    SELECT DISTINCT b.user_nid FROM members AS a
    JOIN state_changes AS c ON c.room_nid = a.room_nid AND c.pos > $2 AND c.pos <= $3
    JOIN members AS b ON b.room_nid = a.room_nid AND b.membership = 'join'
        AND (b.event_nid = c.event_nid OR a.event_nid = c.event_nid)
    WHERE a.user_nid = $1 AND a.membership = 'join'"
);
sql!(
    ENDED,
    "
    SELECT DISTINCT b.user_nid FROM members AS a
    JOIN state_changes AS c ON c.room_nid = a.room_nid AND c.pos > $2 AND c.pos <= $3
    JOIN members AS b ON b.room_nid = a.room_nid AND b.user_nid <> a.user_nid
        AND (b.event_nid = c.event_nid AND b.membership IN ('leave', 'ban') AND a.membership = 'join'
            OR a.event_nid = c.event_nid AND a.membership IN ('leave', 'ban'))
    WHERE a.user_nid = $1"
);

fn flat(rows: Vec<(i64,)>) -> Vec<i64> {
    rows.into_iter().map(|(nid,)| nid).collect()
}

/// Users who are joined to a room together with `user_nid` now, themselves among them when they are in any room.
///
/// # Errors
/// The driver's.
pub async fn users_sharing_room(tx: &mut Tx, user_nid: i64) -> Result<Vec<i64>> {
    Ok(flat(fetch_all!(tx, NOW, user_nid)?))
}

/// Those of `users` who are joined to a room together with a local user: their servers tell us of their devices.
///
/// # Errors
/// The driver's.
pub async fn with_local_users(tx: &mut Tx, users: &[i64]) -> Result<Vec<i64>> {
    Ok(flat(fetch_all!(tx, WITH_LOCAL, json_list(users))?))
}

/// Users sharing a room with `user_nid` now of whom one or the other has joined it in `since < pos <= until`. A changed
/// profile counts as joining anew, which costs the reader a look at keys they have.
///
/// # Errors
/// The driver's.
pub async fn began(tx: &mut Tx, user_nid: i64, since: i64, until: i64) -> Result<Vec<i64>> {
    Ok(flat(fetch_all!(tx, BEGAN, user_nid, since, until)?))
}

/// Users of a room that they or `user_nid` left in `since < pos <= until`. They may share another room still.
///
/// # Errors
/// The driver's.
pub async fn ended(tx: &mut Tx, user_nid: i64, since: i64, until: i64) -> Result<Vec<i64>> {
    Ok(flat(fetch_all!(tx, ENDED, user_nid, since, until)?))
}
