//! Table `registration_tokens`: invitations to make an account.
//!
//! A token is free while `pending + completed < uses_allowed` (null: without end). `pending` counts sessions that have
//! shown it and not finished; `completed` counts accounts made.

use crate::{Result, Tx};

/// A registration token as stored.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct RegistrationToken {
    /// What the user types.
    pub token: String,
    /// Accounts that may be made with it.
    pub uses_allowed: Option<i64>,
    /// Registrations under way.
    pub pending: i64,
    /// Accounts made.
    pub completed: i64,
    /// Milliseconds since 1970.
    pub expires_ms: Option<i64>,
}

sql!(
    CREATE,
    "
    INSERT INTO registration_tokens (token, uses_allowed, pending, completed, expires_ms) VALUES ($1, $2, 0, 0, $3)
    ON CONFLICT (token) DO NOTHING"
);
sql!(
    FREE,
    "
    SELECT token FROM registration_tokens
    WHERE token = $1 AND (expires_ms IS NULL OR expires_ms > $2)
        AND (uses_allowed IS NULL OR pending + completed < uses_allowed)"
);
sql!(
    RESERVE,
    "
    UPDATE registration_tokens SET pending = pending + 1
    WHERE token = $1 AND (expires_ms IS NULL OR expires_ms > $2)
        AND (uses_allowed IS NULL OR pending + completed < uses_allowed)"
);
sql!(RELEASE, "UPDATE registration_tokens SET pending = pending - 1 WHERE token = $1 AND pending > 0");
sql!(
    COMPLETE,
    "
    UPDATE registration_tokens SET pending = pending - 1, completed = completed + 1 WHERE token = $1 AND pending > 0"
);
sql!(
    ALL,
    "
    SELECT token, uses_allowed, pending, completed, expires_ms FROM registration_tokens ORDER BY token LIMIT $1"
);
sql!(DELETE, "DELETE FROM registration_tokens WHERE token = $1");

/// Make a token. False when it exists.
///
/// # Errors
/// The driver's.
pub async fn create(tx: &mut Tx, token: &str, uses_allowed: Option<i64>, expires_ms: Option<i64>) -> Result<bool> {
    Ok(execute!(tx, CREATE, token, uses_allowed, expires_ms)? == 1)
}

/// True when an account may be made with the token now.
///
/// # Errors
/// The driver's.
pub async fn is_free(tx: &mut Tx, token: &str, now_ms: i64) -> Result<bool> {
    let row: Option<(String,)> = fetch_optional!(tx, FREE, token, now_ms)?;
    Ok(row.is_some())
}

/// Reserve one use. False when none is free.
///
/// # Errors
/// The driver's.
pub async fn reserve(tx: &mut Tx, token: &str, now_ms: i64) -> Result<bool> {
    Ok(execute!(tx, RESERVE, token, now_ms)? == 1)
}

/// Give a reserved use back.
///
/// # Errors
/// The driver's.
pub async fn release(tx: &mut Tx, token: &str) -> Result<()> {
    execute!(tx, RELEASE, token)?;
    Ok(())
}

/// Turn a reserved use into a made account.
///
/// # Errors
/// The driver's.
pub async fn complete(tx: &mut Tx, token: &str) -> Result<()> {
    execute!(tx, COMPLETE, token)?;
    Ok(())
}

/// Up to `len_max` tokens.
///
/// # Errors
/// The driver's.
pub async fn all(tx: &mut Tx, len_max: i64) -> Result<Vec<RegistrationToken>> {
    fetch_all!(tx, ALL, len_max)
}

/// Delete a token. False when there was none.
///
/// # Errors
/// The driver's.
pub async fn delete(tx: &mut Tx, token: &str) -> Result<bool> {
    Ok(execute!(tx, DELETE, token)? == 1)
}
