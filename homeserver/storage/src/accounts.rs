//! Table `accounts`: this server's own users.
//!
//! | column | meaning |
//! |---|---|
//! | user_nid | the user's number |
//! | password | Argon2id in PHC form; null: no login by password |
//! | deactivated_ms | when the account ended; its name stays taken |
//! | is_erased | the user asked to be forgotten |
//! | is_locked, is_suspended | set by administrators |
//! | appservice | the application service that made the account |

use crate::{Result, Tx};

/// An account as stored.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Account {
    /// The user's number.
    pub user_nid: i64,
    /// Argon2id in PHC form.
    pub password: Option<String>,
    /// Milliseconds since 1970.
    pub created_ms: i64,
    /// Milliseconds since 1970; `Some` ends the account.
    pub deactivated_ms: Option<i64>,
    /// The user asked to be forgotten.
    pub is_erased: bool,
    /// Server administrator.
    pub is_admin: bool,
    /// May do nothing but log out.
    pub is_locked: bool,
    /// May read and little else.
    pub is_suspended: bool,
    /// Without password, with few rights.
    pub is_guest: bool,
    /// The application service that made it.
    pub appservice: Option<String>,
}

sql!(
    CREATE,
    "
    INSERT INTO accounts (user_nid, password, created_ms, deactivated_ms, is_erased, is_admin, is_locked, is_suspended,
        is_guest, appservice)
    VALUES ($1, $2, $3, NULL, FALSE, $4, FALSE, FALSE, $5, $6)
    ON CONFLICT (user_nid) DO NOTHING"
);
sql!(
    BY_NID,
    "
    SELECT user_nid, password, created_ms, deactivated_ms, is_erased, is_admin, is_locked, is_suspended, is_guest,
        appservice
    FROM accounts WHERE user_nid = $1"
);
sql!(
    BY_NAME,
    "
    SELECT a.user_nid, a.password, a.created_ms, a.deactivated_ms, a.is_erased, a.is_admin, a.is_locked,
        a.is_suspended, a.is_guest, a.appservice
    FROM users u JOIN accounts a ON a.user_nid = u.nid WHERE u.user_id = $1"
);
sql!(SET_PASSWORD, "UPDATE accounts SET password = $2 WHERE user_nid = $1 AND deactivated_ms IS NULL");
sql!(SET_ADMIN, "UPDATE accounts SET is_admin = $2 WHERE user_nid = $1 AND deactivated_ms IS NULL");
sql!(SET_LOCKED, "UPDATE accounts SET is_locked = $2 WHERE user_nid = $1 AND deactivated_ms IS NULL");
sql!(SET_SUSPENDED, "UPDATE accounts SET is_suspended = $2 WHERE user_nid = $1 AND deactivated_ms IS NULL");
sql!(
    DEACTIVATE,
    "
    UPDATE accounts SET deactivated_ms = $2, is_erased = $3, password = NULL, is_admin = FALSE
    WHERE user_nid = $1 AND deactivated_ms IS NULL"
);
sql!(UPGRADE_GUEST, "UPDATE accounts SET is_guest = FALSE, password = $2 WHERE user_nid = $1 AND is_guest");
sql!(COUNT_ADMINS, "SELECT COUNT(*) AS admins FROM accounts WHERE is_admin AND deactivated_ms IS NULL");

/// Make an account. False when the user has one already, also a deactivated one.
///
/// # Errors
/// The driver's.
pub async fn create(tx: &mut Tx, account: &Account) -> Result<bool> {
    let password = account.password.as_deref();
    let appservice = account.appservice.as_deref();
    let created = execute!(
        tx,
        CREATE,
        account.user_nid,
        password,
        account.created_ms,
        account.is_admin,
        account.is_guest,
        appservice
    )?;
    Ok(created == 1)
}

/// The account of a user.
///
/// # Errors
/// The driver's.
pub async fn by_nid(tx: &mut Tx, user_nid: i64) -> Result<Option<Account>> {
    fetch_optional!(tx, BY_NID, user_nid)
}

/// The account of a user, by user id.
///
/// # Errors
/// The driver's.
pub async fn by_name(tx: &mut Tx, user_id: &str) -> Result<Option<Account>> {
    fetch_optional!(tx, BY_NAME, user_id)
}

/// Set (or with `None` remove) the password. False without such a living account.
///
/// # Errors
/// The driver's.
pub async fn set_password(tx: &mut Tx, user_nid: i64, password: Option<&str>) -> Result<bool> {
    Ok(execute!(tx, SET_PASSWORD, user_nid, password)? == 1)
}

/// Make or unmake an administrator. False without such a living account.
///
/// # Errors
/// The driver's.
pub async fn set_admin(tx: &mut Tx, user_nid: i64, is_admin: bool) -> Result<bool> {
    Ok(execute!(tx, SET_ADMIN, user_nid, is_admin)? == 1)
}

/// Lock or unlock. False without such a living account.
///
/// # Errors
/// The driver's.
pub async fn set_locked(tx: &mut Tx, user_nid: i64, is_locked: bool) -> Result<bool> {
    Ok(execute!(tx, SET_LOCKED, user_nid, is_locked)? == 1)
}

/// Suspend or restore. False without such a living account.
///
/// # Errors
/// The driver's.
pub async fn set_suspended(tx: &mut Tx, user_nid: i64, is_suspended: bool) -> Result<bool> {
    Ok(execute!(tx, SET_SUSPENDED, user_nid, is_suspended)? == 1)
}

/// End an account. False when it had ended before.
///
/// # Errors
/// The driver's.
pub async fn deactivate(tx: &mut Tx, user_nid: i64, now_ms: i64, is_erased: bool) -> Result<bool> {
    Ok(execute!(tx, DEACTIVATE, user_nid, now_ms, is_erased)? == 1)
}

/// Turn a guest into a regular user. False when they are none.
///
/// # Errors
/// The driver's.
pub async fn upgrade_guest(tx: &mut Tx, user_nid: i64, password: Option<&str>) -> Result<bool> {
    Ok(execute!(tx, UPGRADE_GUEST, user_nid, password)? == 1)
}

/// How many administrators there are.
///
/// # Errors
/// The driver's.
pub async fn count_admins(tx: &mut Tx) -> Result<i64> {
    let row: Option<(i64,)> = fetch_optional!(tx, COUNT_ADMINS)?;
    Ok(row.map_or(0, |(admins,)| admins))
}
