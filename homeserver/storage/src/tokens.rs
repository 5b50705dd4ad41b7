//! Tables `tokens` and `short_tokens`: what proves who somebody is, kept as SHA-256 in hexadecimal.
//!
//! `tokens.replaces` is the refresh token (hashed) that this access token was got with, until the access token is first
//! used: then that refresh token has done its duty. `short_tokens` are good once, within minutes: `login` for
//! `m.login.token`, `nonce` for the registration by shared secret; `openid` alone may be used until it expires.

use crate::{Result, Tx, numbers::json_list};

/// An access token as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// SHA-256, hexadecimal.
    pub hash: String,
    /// Whose.
    pub user_nid: i64,
    /// On which device.
    pub device_id: Option<String>,
    /// Milliseconds since 1970.
    pub created_ms: i64,
    /// Milliseconds since 1970; `None`: until revoked.
    pub expires_ms: Option<i64>,
    /// The refresh token it was got with, until first use.
    pub replaces: Option<String>,
}

/// Whom a token belongs to.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Bearer {
    /// The user's number.
    pub user_nid: i64,
    /// The user's id.
    pub user_id: String,
    /// The device.
    pub device_id: Option<String>,
    /// Milliseconds since 1970.
    pub expires_ms: Option<i64>,
    /// The refresh token to retire.
    pub replaces: Option<String>,
    /// From the account.
    pub is_admin: bool,
    /// From the account.
    pub is_locked: bool,
    /// From the account.
    pub is_suspended: bool,
    /// From the account.
    pub is_guest: bool,
}

sql!(
    PUT,
    "
    INSERT INTO tokens (hash, user_nid, device_id, created_ms, expires_ms, replaces) VALUES ($1, $2, $3, $4, $5, $6)"
);
sql!(
    BEARER,
    "
    SELECT t.user_nid, u.user_id, t.device_id, t.expires_ms, t.replaces, a.is_admin, a.is_locked, a.is_suspended,
        a.is_guest
    FROM tokens t JOIN accounts a ON a.user_nid = t.user_nid JOIN users u ON u.nid = t.user_nid
    WHERE t.hash = $1"
);
sql!(OF_USER, "SELECT hash FROM tokens WHERE user_nid = $1");
sql!(USED, "UPDATE tokens SET replaces = NULL WHERE hash = $1");
sql!(DELETE, "DELETE FROM tokens WHERE hash IN (SELECT value FROM json_each($1))");
sql!(
    DELETE_OF_DEVICES,
    "
    DELETE FROM tokens WHERE user_nid = $1 AND device_id IN (SELECT value FROM json_each($2)) RETURNING hash"
);
sql!(DELETE_OF_USER, "DELETE FROM tokens WHERE user_nid = $1 RETURNING hash");
sql!(SWEEP, "DELETE FROM tokens WHERE expires_ms < $1");
sql!(SHORT_PUT, "INSERT INTO short_tokens (kind, hash, user_nid, expires_ms) VALUES ($1, $2, $3, $4)");
sql!(
    SHORT_TAKE,
    "
    DELETE FROM short_tokens WHERE kind = $1 AND hash = $2 RETURNING user_nid, expires_ms"
);
sql!(SHORT_PEEK, "SELECT user_nid, expires_ms FROM short_tokens WHERE kind = $1 AND hash = $2");
sql!(SHORT_DELETE_OF_USER, "DELETE FROM short_tokens WHERE user_nid = $1");
sql!(SHORT_SWEEP, "DELETE FROM short_tokens WHERE expires_ms < $1");

fn flat(rows: Vec<(String,)>) -> Vec<String> {
    rows.into_iter().map(|(hash,)| hash).collect()
}

/// Store an access token.
///
/// # Errors
/// The driver's.
pub async fn put(tx: &mut Tx, token: &Token) -> Result<()> {
    execute!(
        tx,
        PUT,
        token.hash.as_str(),
        token.user_nid,
        token.device_id.as_deref(),
        token.created_ms,
        token.expires_ms,
        token.replaces.as_deref()
    )?;
    Ok(())
}

/// Whom the token of this hash belongs to, expired or not.
///
/// # Errors
/// The driver's.
pub async fn bearer(tx: &mut Tx, hash: &str) -> Result<Option<Bearer>> {
    fetch_optional!(tx, BEARER, hash)
}

/// All access tokens of a user.
///
/// # Errors
/// The driver's.
pub async fn of_user(tx: &mut Tx, user_nid: i64) -> Result<Vec<String>> {
    Ok(flat(fetch_all!(tx, OF_USER, user_nid)?))
}

/// Note that a token was used: it no longer waits to replace another.
///
/// # Errors
/// The driver's.
pub async fn used(tx: &mut Tx, hash: &str) -> Result<()> {
    execute!(tx, USED, hash)?;
    Ok(())
}

/// Delete these access tokens.
///
/// # Errors
/// The driver's.
pub async fn delete(tx: &mut Tx, hashes: &[String]) -> Result<()> {
    execute!(tx, DELETE, json_list(hashes))?;
    Ok(())
}

/// Delete all access tokens of these devices. Returns them.
///
/// # Errors
/// The driver's.
pub async fn delete_of_devices(tx: &mut Tx, user_nid: i64, device_ids: &[String]) -> Result<Vec<String>> {
    Ok(flat(fetch_all!(tx, DELETE_OF_DEVICES, user_nid, json_list(device_ids))?))
}

/// Delete all access tokens of a user. Returns them.
///
/// # Errors
/// The driver's.
pub async fn delete_of_user(tx: &mut Tx, user_nid: i64) -> Result<Vec<String>> {
    Ok(flat(fetch_all!(tx, DELETE_OF_USER, user_nid)?))
}

/// Delete what expired before `before_ms`; returns how many.
///
/// # Errors
/// The driver's.
pub async fn sweep(tx: &mut Tx, before_ms: i64) -> Result<u64> {
    Ok(execute!(tx, SWEEP, before_ms)? + execute!(tx, SHORT_SWEEP, before_ms)?)
}

/// Store a short token.
///
/// # Errors
/// The driver's.
pub async fn put_short(tx: &mut Tx, kind: &str, hash: &str, user_nid: i64, expires_ms: i64) -> Result<()> {
    execute!(tx, SHORT_PUT, kind, hash, user_nid, expires_ms)?;
    Ok(())
}

/// Use up a short token: its user and when it expires. Of two takers one gets it.
///
/// # Errors
/// The driver's.
pub async fn take_short(tx: &mut Tx, kind: &str, hash: &str) -> Result<Option<(i64, i64)>> {
    fetch_optional!(tx, SHORT_TAKE, kind, hash)
}

/// Look at a short token: its user and when it expires.
///
/// # Errors
/// The driver's.
pub async fn peek_short(tx: &mut Tx, kind: &str, hash: &str) -> Result<Option<(i64, i64)>> {
    fetch_optional!(tx, SHORT_PEEK, kind, hash)
}

/// Delete all short tokens of a user.
///
/// # Errors
/// The driver's.
pub async fn delete_short_of_user(tx: &mut Tx, user_nid: i64) -> Result<()> {
    execute!(tx, SHORT_DELETE_OF_USER, user_nid)?;
    Ok(())
}
