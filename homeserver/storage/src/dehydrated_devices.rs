//! Table `dehydrated_devices`: at most one device of a user that receives messages while nobody is logged in (MSC3814).
//! `body` is its encrypted state, JSON. Its keys stand in the tables of keys, as any device's.

use crate::{Result, Tx};

sql!(
    PUT,
    "
    INSERT INTO dehydrated_devices (user_nid, device_id, body) VALUES ($1, $2, $3)
    ON CONFLICT (user_nid) DO UPDATE SET device_id = excluded.device_id, body = excluded.body"
);
sql!(OF_USER, "SELECT device_id, body FROM dehydrated_devices WHERE user_nid = $1");
sql!(REMOVE, "DELETE FROM dehydrated_devices WHERE user_nid = $1");

/// Store a user's dehydrated device in place of the last one.
///
/// # Errors
/// The driver's.
pub async fn put(tx: &mut Tx, user_nid: i64, device_id: &str, body: &str) -> Result<()> {
    execute!(tx, PUT, user_nid, device_id, body)?;
    Ok(())
}

/// A user's dehydrated device: (device, encrypted state).
///
/// # Errors
/// The driver's.
pub async fn of_user(tx: &mut Tx, user_nid: i64) -> Result<Option<(String, String)>> {
    fetch_optional!(tx, OF_USER, user_nid)
}

/// Remove a user's dehydrated device, but not its keys.
///
/// # Errors
/// The driver's.
pub async fn remove(tx: &mut Tx, user_nid: i64) -> Result<()> {
    execute!(tx, REMOVE, user_nid)?;
    Ok(())
}
