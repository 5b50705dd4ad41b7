//! Table `device_keys`: the identity keys of devices, local ones and those of other servers' users we follow.
//!
//! | column | meaning |
//! |---|---|
//! | user_nid, device_id | key |
//! | body | the keys as uploaded, JSON, without `unsigned`; signatures added later stand in `key_signatures` |
//! | display_name | of devices of other servers; a local device's name stands in `devices` |
//!
//! Also what goes when a device goes ([`forget`]).

use crate::{Result, Tx, numbers::json_list};

/// A device's identity keys.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct DeviceKeys {
    /// The device's user.
    pub user_nid: i64,
    /// The device.
    pub device_id: String,
    /// The keys, JSON.
    pub body: String,
    /// What the user calls the device.
    pub display_name: Option<String>,
}

sql!(
    OF_USERS,
    "
    SELECT k.user_nid, k.device_id, k.body, coalesce(d.display_name, k.display_name) AS display_name
    FROM device_keys AS k LEFT JOIN devices AS d ON d.user_nid = k.user_nid AND d.device_id = k.device_id
    WHERE k.user_nid IN (SELECT CAST(value AS BIGINT) FROM json_each($1))
    ORDER BY k.user_nid, k.device_id"
);
sql!(
    ONE,
    "
    SELECT k.user_nid, k.device_id, k.body, coalesce(d.display_name, k.display_name) AS display_name
    FROM device_keys AS k LEFT JOIN devices AS d ON d.user_nid = k.user_nid AND d.device_id = k.device_id
    WHERE k.user_nid = $1 AND k.device_id = $2"
);
sql!(
    PUT,
    "
    INSERT INTO device_keys (user_nid, device_id, body, display_name) VALUES ($1, $2, $3, $4)
    ON CONFLICT (user_nid, device_id) DO UPDATE SET body = excluded.body, display_name = excluded.display_name"
);
sql!(
    REMOVE,
    "
    DELETE FROM device_keys WHERE user_nid = $1 AND device_id IN (SELECT value FROM json_each($2))
    RETURNING device_id"
);
sql!(REMOVE_ALL, "DELETE FROM device_keys WHERE user_nid = $1 RETURNING device_id");
sql!(
    REMOVE_ONE_TIME,
    "
    DELETE FROM one_time_keys WHERE user_nid = $1 AND device_id IN (SELECT value FROM json_each($2))"
);
sql!(
    REMOVE_FALLBACK,
    "
    DELETE FROM fallback_keys WHERE user_nid = $1 AND device_id IN (SELECT value FROM json_each($2))"
);
sql!(
    REMOVE_SIGNATURES,
    "
    DELETE FROM key_signatures WHERE user_nid = $1 AND target IN (SELECT value FROM json_each($2))"
);
sql!(
    REMOVE_MESSAGES,
    "
    DELETE FROM to_device WHERE user_nid = $1 AND device_id IN (SELECT value FROM json_each($2))"
);
sql!(
    DEVICES_OF,
    "
    SELECT user_nid, device_id FROM devices WHERE user_nid IN (SELECT CAST(value AS BIGINT) FROM json_each($1))
    UNION SELECT user_nid, device_id FROM dehydrated_devices
    WHERE user_nid IN (SELECT CAST(value AS BIGINT) FROM json_each($1))"
);

/// The keys of users' devices, ordered by user and device.
///
/// # Errors
/// The driver's.
pub async fn of_users(tx: &mut Tx, users: &[i64]) -> Result<Vec<DeviceKeys>> {
    fetch_all!(tx, OF_USERS, json_list(users))
}

/// One device's keys.
///
/// # Errors
/// The driver's.
pub async fn one(tx: &mut Tx, user_nid: i64, device_id: &str) -> Result<Option<DeviceKeys>> {
    fetch_optional!(tx, ONE, user_nid, device_id)
}

/// Store a device's keys in place of those it had.
///
/// # Errors
/// The driver's.
pub async fn put(tx: &mut Tx, keys: &DeviceKeys) -> Result<()> {
    let name = keys.display_name.as_deref();
    execute!(tx, PUT, keys.user_nid, keys.device_id.as_str(), keys.body.as_str(), name)?;
    Ok(())
}

/// Remove all identity keys of a user; nothing else of theirs.
///
/// # Errors
/// The driver's.
pub async fn remove_all(tx: &mut Tx, user_nid: i64) -> Result<Vec<String>> {
    let rows: Vec<(String,)> = fetch_all!(tx, REMOVE_ALL, user_nid)?;
    Ok(rows.into_iter().map(|(device_id,)| device_id).collect())
}

/// Remove everything kept for devices that go: keys of all kinds, signatures on them, waiting messages. Returns the devices
/// that had identity keys; for each the caller writes a row of `device_changes`.
///
/// # Errors
/// The driver's.
pub async fn forget(tx: &mut Tx, user_nid: i64, devices: &[String]) -> Result<Vec<String>> {
    let list = json_list(devices);
    let had_keys: Vec<(String,)> = fetch_all!(tx, REMOVE, user_nid, list.as_str())?;
    execute!(tx, REMOVE_ONE_TIME, user_nid, list.as_str())?;
    execute!(tx, REMOVE_FALLBACK, user_nid, list.as_str())?;
    execute!(tx, REMOVE_SIGNATURES, user_nid, list.as_str())?;
    execute!(tx, REMOVE_MESSAGES, user_nid, list.as_str())?;
    Ok(had_keys.into_iter().map(|(device_id,)| device_id).collect())
}

/// All devices of local users, dehydrated ones too, with keys or without: (user, device).
///
/// # Errors
/// The driver's.
pub async fn devices_of(tx: &mut Tx, users: &[i64]) -> Result<Vec<(i64, String)>> {
    fetch_all!(tx, DEVICES_OF, json_list(users))
}
