//! Table `devices`: the sessions of this server's own users.
//!
//! `last_seen_*` lag behind by up to a minute: they are written in batches.

use crate::{Result, Tx, numbers::json_list};

/// A device as stored.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Device {
    /// Its owner.
    pub user_nid: i64,
    /// Its id, unique for its owner.
    pub device_id: String,
    /// What the owner calls it.
    pub display_name: Option<String>,
    /// Milliseconds since 1970.
    pub created_ms: i64,
    /// Milliseconds since 1970.
    pub last_seen_ms: Option<i64>,
    /// The address it last used.
    pub last_seen_ip: Option<String>,
    /// The program it last used.
    pub last_seen_agent: Option<String>,
}

sql!(
    CREATE,
    "
    INSERT INTO devices (user_nid, device_id, display_name, created_ms, last_seen_ms, last_seen_ip, last_seen_agent)
    VALUES ($1, $2, $3, $4, $5, $6, $7)
    ON CONFLICT (user_nid, device_id) DO NOTHING"
);
sql!(
    OF_USER,
    "
    SELECT user_nid, device_id, display_name, created_ms, last_seen_ms, last_seen_ip, last_seen_agent
    FROM devices WHERE user_nid = $1 ORDER BY created_ms, device_id"
);
sql!(
    ONE,
    "
    SELECT user_nid, device_id, display_name, created_ms, last_seen_ms, last_seen_ip, last_seen_agent
    FROM devices WHERE user_nid = $1 AND device_id = $2"
);
sql!(RENAME, "UPDATE devices SET display_name = $3 WHERE user_nid = $1 AND device_id = $2");
sql!(
    SEEN,
    "
    UPDATE devices SET last_seen_ms = $3, last_seen_ip = $4, last_seen_agent = $5
    WHERE user_nid = $1 AND device_id = $2 AND (last_seen_ms IS NULL OR last_seen_ms < $3)"
);
sql!(
    DELETE,
    "
    DELETE FROM devices WHERE user_nid = $1 AND device_id IN (SELECT value FROM json_each($2))
    RETURNING device_id"
);

/// Add a device. False when the user has one of this id; it then keeps its name.
///
/// # Errors
/// The driver's.
pub async fn create(tx: &mut Tx, device: &Device) -> Result<bool> {
    let created = execute!(
        tx,
        CREATE,
        device.user_nid,
        device.device_id.as_str(),
        device.display_name.as_deref(),
        device.created_ms,
        device.last_seen_ms,
        device.last_seen_ip.as_deref(),
        device.last_seen_agent.as_deref()
    )?;
    Ok(created == 1)
}

/// All devices of a user, oldest first.
///
/// # Errors
/// The driver's.
pub async fn of_user(tx: &mut Tx, user_nid: i64) -> Result<Vec<Device>> {
    fetch_all!(tx, OF_USER, user_nid)
}

/// One device.
///
/// # Errors
/// The driver's.
pub async fn one(tx: &mut Tx, user_nid: i64, device_id: &str) -> Result<Option<Device>> {
    fetch_optional!(tx, ONE, user_nid, device_id)
}

/// Name a device. False without such a device.
///
/// # Errors
/// The driver's.
pub async fn rename(tx: &mut Tx, user_nid: i64, device_id: &str, display_name: Option<&str>) -> Result<bool> {
    Ok(execute!(tx, RENAME, user_nid, device_id, display_name)? == 1)
}

/// Note when and from where a device was last used; older news never replace newer ones.
///
/// # Errors
/// The driver's.
pub async fn seen(tx: &mut Tx, device: &Device) -> Result<()> {
    execute!(
        tx,
        SEEN,
        device.user_nid,
        device.device_id.as_str(),
        device.last_seen_ms,
        device.last_seen_ip.as_deref(),
        device.last_seen_agent.as_deref()
    )?;
    Ok(())
}

/// Delete devices. Returns those that were there.
///
/// # Errors
/// The driver's.
pub async fn delete(tx: &mut Tx, user_nid: i64, device_ids: &[String]) -> Result<Vec<String>> {
    let rows: Vec<(String,)> = fetch_all!(tx, DELETE, user_nid, json_list(device_ids))?;
    Ok(rows.into_iter().map(|(id,)| id).collect())
}
