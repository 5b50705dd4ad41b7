//! Table `device_changes`: that a user's devices or keys changed; one row for each change, however many see it.
//!
//! | column | meaning |
//! |---|---|
//! | nid | number given by us |
//! | user_nid | whose |
//! | device_id | which device; '' when the user's own keys changed |
//! | viewer_nid | the one user who may see the change (their signature on somebody's key); 0 for all who share a room |
//! | pos | position; to other servers the `stream_id` of the change |

use crate::{Result, Tx};

/// A change to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewChange<'a> {
    /// Number of [`crate::numbers::Family::DeviceChange`].
    pub nid: i64,
    /// Whose devices or keys.
    pub user_nid: i64,
    /// Which device; '' for the user's own keys.
    pub device_id: &'a str,
    /// Who alone may see it, or 0.
    pub viewer_nid: i64,
}

/// A change of a local user, for other servers.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct OutboundChange {
    /// Its position.
    pub pos: i64,
    /// Whose.
    pub user_nid: i64,
    /// Which device; '' for the user's own keys.
    pub device_id: String,
    /// Position of the user's change before.
    pub prev_pos: Option<i64>,
}

/// Who changed, and for whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct Changed {
    /// Whose devices or keys.
    pub user_nid: i64,
    /// Who alone may see it, or 0.
    pub viewer_nid: i64,
}

sql!(
    PUT,
    "
    INSERT INTO device_changes (nid, user_nid, device_id, viewer_nid, pos)
    VALUES ($1, $2, $3, $4, (SELECT next FROM next_position))"
);
sql!(
    CHANGED,
    "
    SELECT DISTINCT user_nid, viewer_nid FROM device_changes
    WHERE pos > $2 AND pos <= $3 AND (viewer_nid = 0 OR viewer_nid = $1)"
);
sql!(
    OUTBOUND,
    "
    SELECT c.pos, c.user_nid, c.device_id,
        (SELECT max(p.pos) FROM device_changes AS p
            WHERE p.user_nid = c.user_nid AND p.viewer_nid = 0 AND p.pos < c.pos) AS prev_pos
    FROM device_changes AS c JOIN users AS u ON u.nid = c.user_nid
    WHERE c.pos > $1 AND c.pos <= $2 AND c.viewer_nid = 0 AND u.is_local
    ORDER BY c.pos LIMIT $3"
);
sql!(NEWEST_OF, "SELECT max(pos) AS pos FROM device_changes WHERE user_nid = $1 AND viewer_nid = 0");
sql!(
    FORGET_SUPERSEDED,
    "
    DELETE FROM device_changes WHERE pos < $1 AND EXISTS (
        SELECT 1 FROM device_changes AS n WHERE n.user_nid = device_changes.user_nid
            AND n.viewer_nid = device_changes.viewer_nid AND n.pos > device_changes.pos)"
);

/// Write changes, in this order.
///
/// # Errors
/// The driver's.
pub async fn put(tx: &mut Tx, changes: &[NewChange<'_>]) -> Result<()> {
    for change in changes {
        execute!(tx, PUT, change.nid, change.user_nid, change.device_id, change.viewer_nid)?;
    }
    tx.streamed(changes.len() as u64);
    Ok(())
}

/// Users whose devices or keys changed in `since < pos <= until`, as far as `viewer_nid` may see: all users of the server's
/// rooms, whether or not they share one with the viewer.
///
/// # Errors
/// The driver's.
pub async fn changed(tx: &mut Tx, viewer_nid: i64, since: i64, until: i64) -> Result<Vec<Changed>> {
    fetch_all!(tx, CHANGED, viewer_nid, since, until)
}

/// Changes of local users in `since < pos <= until` that other servers are told, at most `limit`, in order.
///
/// # Errors
/// The driver's.
pub async fn outbound(tx: &mut Tx, since: i64, until: i64, limit: i64) -> Result<Vec<OutboundChange>> {
    fetch_all!(tx, OUTBOUND, since, until, limit)
}

/// Position of a user's newest change; 0 when there was none.
///
/// # Errors
/// The driver's.
pub async fn newest_of(tx: &mut Tx, user_nid: i64) -> Result<i64> {
    let row: Option<(Option<i64>,)> = fetch_optional!(tx, NEWEST_OF, user_nid)?;
    Ok(row.and_then(|(pos,)| pos).unwrap_or(0))
}

/// Forget changes before `pos` that a later one of the same user covers. Returns how many.
///
/// # Errors
/// The driver's.
pub async fn forget_superseded(tx: &mut Tx, pos: i64) -> Result<u64> {
    execute!(tx, FORGET_SUPERSEDED, pos)
}
