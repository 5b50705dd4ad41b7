//! Table `profile_fields`: the global profiles of this server's own users, a row a field; `value` is JSON.

use crate::{Result, Tx, numbers::json_list};

sql!(
    PUT,
    "
    INSERT INTO profile_fields (user_nid, field, value) VALUES ($1, $2, $3)
    ON CONFLICT (user_nid, field) DO UPDATE SET value = excluded.value"
);
sql!(DELETE, "DELETE FROM profile_fields WHERE user_nid = $1 AND field = $2");
sql!(DELETE_ALL, "DELETE FROM profile_fields WHERE user_nid = $1");
sql!(OF_USER, "SELECT field, value FROM profile_fields WHERE user_nid = $1 ORDER BY field");
sql!(
    OF_USERS,
    "
    SELECT user_nid, field, value FROM profile_fields
    WHERE user_nid IN (SELECT CAST(value AS BIGINT) FROM json_each($1)) AND field IN ('displayname', 'avatar_url')"
);

/// Set a field.
///
/// # Errors
/// The driver's.
pub async fn put(tx: &mut Tx, user_nid: i64, field: &str, value: &str) -> Result<()> {
    execute!(tx, PUT, user_nid, field, value)?;
    Ok(())
}

/// Remove a field. False when it was not set.
///
/// # Errors
/// The driver's.
pub async fn delete(tx: &mut Tx, user_nid: i64, field: &str) -> Result<bool> {
    Ok(execute!(tx, DELETE, user_nid, field)? == 1)
}

/// Remove all fields.
///
/// # Errors
/// The driver's.
pub async fn delete_all(tx: &mut Tx, user_nid: i64) -> Result<()> {
    execute!(tx, DELETE_ALL, user_nid)?;
    Ok(())
}

/// All fields of a user: name, JSON.
///
/// # Errors
/// The driver's.
pub async fn of_user(tx: &mut Tx, user_nid: i64) -> Result<Vec<(String, String)>> {
    fetch_all!(tx, OF_USER, user_nid)
}

/// Display names and avatars of users: number, field, JSON.
///
/// # Errors
/// The driver's.
pub async fn of_users(tx: &mut Tx, user_nids: &[i64]) -> Result<Vec<(i64, String, String)>> {
    fetch_all!(tx, OF_USERS, json_list(user_nids))
}
