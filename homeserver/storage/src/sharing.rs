//! Who shares rooms with whom, read from `members` and `state_changes`: it decides whose keys a user is told about.

use crate::{Result, Tx, numbers::json_list};

sql!(
    WITH_LOCAL,
    "
    SELECT DISTINCT r.user_nid FROM members AS r
    JOIN members AS l ON l.room_nid = r.room_nid AND l.membership = 'join'
    JOIN users AS u ON u.nid = l.user_nid AND u.is_local
    WHERE r.user_nid IN (SELECT CAST(value AS BIGINT) FROM json_each($1)) AND r.membership = 'join'"
);
// One statement for the four questions of a device list: changed keys of users one shares a room with, users who began to share
// one, users who ceased to. A changed profile counts as joining anew, which costs the reader a look at keys they have.
sql!(
    DEVICE_LISTS,
    "
    WITH sharing AS (
        SELECT DISTINCT b.user_nid FROM members AS a
        JOIN members AS b ON b.room_nid = a.room_nid AND b.membership = 'join'
        WHERE a.user_nid = $1 AND a.membership = 'join'
    )
    SELECT d.user_nid, FALSE AS has_left FROM device_changes AS d
    WHERE d.pos > $2 AND d.pos <= $3 AND (d.viewer_nid = $1 OR d.viewer_nid = 0
        AND (d.user_nid = $1 OR d.user_nid IN (SELECT user_nid FROM sharing)))
    UNION
    SELECT b.user_nid, FALSE AS has_left FROM members AS a
    JOIN state_changes AS c ON c.room_nid = a.room_nid AND c.pos > $2 AND c.pos <= $3
    JOIN members AS b ON b.room_nid = a.room_nid AND b.membership = 'join'
        AND (b.event_nid = c.event_nid OR a.event_nid = c.event_nid)
    WHERE a.user_nid = $1 AND a.membership = 'join'
    UNION
    SELECT b.user_nid, TRUE AS has_left FROM members AS a
    JOIN state_changes AS c ON c.room_nid = a.room_nid AND c.pos > $2 AND c.pos <= $3
    JOIN members AS b ON b.room_nid = a.room_nid AND b.user_nid <> a.user_nid
        AND (b.event_nid = c.event_nid AND b.membership IN ('leave', 'ban') AND a.membership = 'join'
            OR a.event_nid = c.event_nid AND a.membership IN ('leave', 'ban'))
    WHERE a.user_nid = $1 AND b.user_nid NOT IN (SELECT user_nid FROM sharing)"
);

fn flat(rows: Vec<(i64,)>) -> Vec<i64> {
    rows.into_iter().map(|(nid,)| nid).collect()
}

/// Those of `users` who are joined to a room together with a local user: their servers tell us of their devices.
///
/// # Errors
/// The driver's.
pub async fn with_local_users(tx: &mut Tx, users: &[i64]) -> Result<Vec<i64>> {
    Ok(flat(fetch_all!(tx, WITH_LOCAL, json_list(users))?))
}

/// What a user is told about whose keys to look at in `since < pos <= until`: (user, whether they share no room any more). Changed
/// keys of those they share a room with and of whom they signed, users of whom one or the other has joined such a room.
///
/// # Errors
/// The driver's.
pub async fn device_lists(tx: &mut Tx, user_nid: i64, since: i64, until: i64) -> Result<Vec<(i64, bool)>> {
    fetch_all!(tx, DEVICE_LISTS, user_nid, since, until)
}
