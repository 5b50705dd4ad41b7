//! Table `uia_sessions`: user-interactive authentication under way. In the database, because the next request may reach
//! another instance.
//!
//! | column | meaning |
//! |---|---|
//! | operation | what the session may be used for, and by whom |
//! | completed | JSON list of the stages done |
//! | registration_token | the token shown, whose use is reserved |

use crate::{Result, Tx};

/// A session as stored.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct UiaSession {
    /// Its id, random.
    pub id: String,
    /// What it may be used for.
    pub operation: String,
    /// JSON list of stages.
    pub completed: String,
    /// The reserved registration token.
    pub registration_token: Option<String>,
    /// Milliseconds since 1970.
    pub expires_ms: i64,
}

sql!(
    CREATE,
    "
    INSERT INTO uia_sessions (id, operation, completed, registration_token, expires_ms) VALUES ($1, $2, $3, $4, $5)"
);
sql!(
    BY_ID,
    "
    SELECT id, operation, completed, registration_token, expires_ms FROM uia_sessions WHERE id = $1 AND expires_ms > $2"
);
sql!(
    ADVANCE,
    // Compare-and-set on what was done before: of two requests that finish stages at once, one starts over.
    "
    UPDATE uia_sessions SET completed = $3, registration_token = $4 WHERE id = $1 AND completed = $2"
);
sql!(DELETE, "DELETE FROM uia_sessions WHERE id = $1 RETURNING registration_token");
sql!(SWEEP, "DELETE FROM uia_sessions WHERE expires_ms < $1 RETURNING registration_token");

/// Store a new session.
///
/// # Errors
/// The driver's.
pub async fn create(tx: &mut Tx, session: &UiaSession) -> Result<()> {
    execute!(
        tx,
        CREATE,
        session.id.as_str(),
        session.operation.as_str(),
        session.completed.as_str(),
        session.registration_token.as_deref(),
        session.expires_ms
    )?;
    Ok(())
}

/// The session of this id, unless it has expired.
///
/// # Errors
/// The driver's.
pub async fn by_id(tx: &mut Tx, id: &str, now_ms: i64) -> Result<Option<UiaSession>> {
    fetch_optional!(tx, BY_ID, id, now_ms)
}

/// Note stages done. `was` is what was done when the session was read; false when that has changed.
///
/// # Errors
/// The driver's.
pub async fn advance(tx: &mut Tx, session: &UiaSession, was: &str) -> Result<bool> {
    let token = session.registration_token.as_deref();
    Ok(execute!(tx, ADVANCE, session.id.as_str(), was, session.completed.as_str(), token)? == 1)
}

/// End a session. False when it had ended: of two requests that use it, one succeeds. Otherwise its registration token.
///
/// # Errors
/// The driver's.
pub async fn delete(tx: &mut Tx, id: &str) -> Result<Option<Option<String>>> {
    let row: Option<(Option<String>,)> = fetch_optional!(tx, DELETE, id)?;
    Ok(row.map(|(token,)| token))
}

/// End what expired before `before_ms`. Returns the registration tokens whose use they had reserved.
///
/// # Errors
/// The driver's.
pub async fn sweep(tx: &mut Tx, before_ms: i64) -> Result<Vec<String>> {
    let rows: Vec<(Option<String>,)> = fetch_all!(tx, SWEEP, before_ms)?;
    Ok(rows.into_iter().filter_map(|(token,)| token).collect())
}
