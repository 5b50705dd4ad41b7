//! Table `refresh_tokens`: what an expired access token is renewed with, when no Valkey keeps them.
//!
//! Each renewal makes a child of the token it was made with; parent and child are one `family`. The parent stays good until
//! the child or its access token is first used (a client may have lost the answer), then it is retired. Somebody who
//! comes with a retired token has a copy that should not exist: the whole family ends.

use crate::{Result, Tx};

/// A refresh token as stored.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct RefreshToken {
    /// SHA-256, hexadecimal.
    pub hash: String,
    /// All tokens that descend from one login.
    pub family: String,
    /// The token it was made with.
    pub parent: Option<String>,
    /// Whose.
    pub user_nid: i64,
    /// On which device.
    pub device_id: String,
    /// The access token given with it.
    pub access_hash: String,
    /// Its child was used.
    pub is_retired: bool,
    /// Milliseconds since 1970.
    pub expires_ms: i64,
}

sql!(
    PUT,
    "
    INSERT INTO refresh_tokens (hash, family, parent, user_nid, device_id, access_hash, is_retired, expires_ms)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
);
sql!(
    HOLD,
    // Writes nothing, but two renewals with one token come here one after the other on both databases.
    "
    UPDATE refresh_tokens SET hash = hash WHERE hash = $1
    RETURNING hash, family, parent, user_nid, device_id, access_hash, is_retired, expires_ms"
);
sql!(OWNER, "SELECT user_nid, device_id FROM refresh_tokens WHERE hash = $1");
sql!(RETIRE, "UPDATE refresh_tokens SET is_retired = TRUE WHERE hash = $1 AND NOT is_retired RETURNING access_hash");
sql!(DROP_CHILDREN, "DELETE FROM refresh_tokens WHERE parent = $1 RETURNING access_hash");
sql!(DROP_FAMILY, "DELETE FROM refresh_tokens WHERE family = $1 RETURNING access_hash");
sql!(DROP_DEVICE, "DELETE FROM refresh_tokens WHERE user_nid = $1 AND device_id = $2");
sql!(DROP_USER, "DELETE FROM refresh_tokens WHERE user_nid = $1");
sql!(SWEEP, "DELETE FROM refresh_tokens WHERE expires_ms < $1");

fn flat(rows: Vec<(String,)>) -> Vec<String> {
    rows.into_iter().map(|(hash,)| hash).collect()
}

/// Store a token.
///
/// # Errors
/// The driver's.
pub async fn put(tx: &mut Tx, token: &RefreshToken) -> Result<()> {
    execute!(
        tx,
        PUT,
        token.hash.as_str(),
        token.family.as_str(),
        token.parent.as_deref(),
        token.user_nid,
        token.device_id.as_str(),
        token.access_hash.as_str(),
        token.is_retired,
        token.expires_ms
    )?;
    Ok(())
}

/// The token of this hash; nobody else gets it until the transaction ends.
///
/// # Errors
/// The driver's.
pub async fn hold(tx: &mut Tx, hash: &str) -> Result<Option<RefreshToken>> {
    fetch_optional!(tx, HOLD, hash)
}

/// Whose the token of this hash is, and on which device; retired and expired tokens have owners too.
///
/// # Errors
/// The driver's.
pub async fn owner(tx: &mut Tx, hash: &str) -> Result<Option<(i64, String)>> {
    fetch_optional!(tx, OWNER, hash)
}

/// Retire a token. Returns the access token given with it, unless it was retired before.
///
/// # Errors
/// The driver's.
pub async fn retire(tx: &mut Tx, hash: &str) -> Result<Option<String>> {
    let row: Option<(String,)> = fetch_optional!(tx, RETIRE, hash)?;
    Ok(row.map(|(access,)| access))
}

/// Delete the children of a token. Returns the access tokens given with them.
///
/// # Errors
/// The driver's.
pub async fn drop_children(tx: &mut Tx, hash: &str) -> Result<Vec<String>> {
    Ok(flat(fetch_all!(tx, DROP_CHILDREN, hash)?))
}

/// Delete a family. Returns the access tokens given with its members.
///
/// # Errors
/// The driver's.
pub async fn drop_family(tx: &mut Tx, family: &str) -> Result<Vec<String>> {
    Ok(flat(fetch_all!(tx, DROP_FAMILY, family)?))
}

/// Delete all tokens of a device.
///
/// # Errors
/// The driver's.
pub async fn drop_device(tx: &mut Tx, user_nid: i64, device_id: &str) -> Result<()> {
    execute!(tx, DROP_DEVICE, user_nid, device_id)?;
    Ok(())
}

/// Delete all tokens of a user.
///
/// # Errors
/// The driver's.
pub async fn drop_user(tx: &mut Tx, user_nid: i64) -> Result<()> {
    execute!(tx, DROP_USER, user_nid)?;
    Ok(())
}

/// Delete what expired before `before_ms`; returns how many.
///
/// # Errors
/// The driver's.
pub async fn sweep(tx: &mut Tx, before_ms: i64) -> Result<u64> {
    execute!(tx, SWEEP, before_ms)
}
