//! What changed between two positions outside the timeline, for an instance that missed the news.

use crate::{Result, Tx};

sql!(RECEIPT_ROOMS, "SELECT DISTINCT room_nid FROM receipts WHERE pos > $1 AND pos <= $2");
sql!(
    USERS,
    "
    SELECT user_nid FROM account_data WHERE pos > $1 AND pos <= $2
    UNION SELECT user_nid FROM receipts WHERE pos > $1 AND pos <= $2"
);
sql!(
    MEMBERS,
    "
    SELECT user_nid FROM invitations WHERE pos > $1 AND pos <= $2
    UNION SELECT m.user_nid FROM timeline AS t JOIN state_changes AS c ON c.cause_nid = t.event_nid
        JOIN members AS m ON m.room_nid = c.room_nid AND m.event_nid = c.event_nid
        WHERE t.pos > $1 AND t.pos <= $2"
);
sql!(INBOXES, "SELECT DISTINCT user_nid FROM to_device WHERE pos > $1 AND pos <= $2");
sql!(DEVICE_USERS, "SELECT DISTINCT user_nid FROM device_changes WHERE pos > $1 AND pos <= $2");

/// Who is concerned by positions of streams other than the timeline.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changed {
    /// Rooms with new receipts.
    pub receipt_rooms: Vec<i64>,
    /// Users with new account data or receipts.
    pub users: Vec<i64>,
    /// Users whose memberships or invitations changed.
    pub members: Vec<i64>,
    /// Users with new messages to their devices.
    pub inboxes: Vec<i64>,
    /// Users whose devices or keys changed.
    pub device_users: Vec<i64>,
}

/// What changed in `since < pos <= until`.
///
/// # Errors
/// The driver's.
pub async fn changed(tx: &mut Tx, since: i64, until: i64) -> Result<Changed> {
    let receipts: Vec<(i64,)> = fetch_all!(tx, RECEIPT_ROOMS, since, until)?;
    let users: Vec<(i64,)> = fetch_all!(tx, USERS, since, until)?;
    let members: Vec<(i64,)> = fetch_all!(tx, MEMBERS, since, until)?;
    let inboxes: Vec<(i64,)> = fetch_all!(tx, INBOXES, since, until)?;
    let devices: Vec<(i64,)> = fetch_all!(tx, DEVICE_USERS, since, until)?;
    let flat = |rows: Vec<(i64,)>| rows.into_iter().map(|(nid,)| nid).collect();
    Ok(Changed {
        receipt_rooms: flat(receipts),
        users: flat(users),
        members: flat(members),
        inboxes: flat(inboxes),
        device_users: flat(devices),
    })
}
