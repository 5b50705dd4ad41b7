//! Table `destinations`: how reaching each other server goes, and how far it has been told.
//!
//! | column | meaning |
//! |---|---|
//! | retry_at | not before this time (ms) is it asked again; 0 when all is well |
//! | fails | failures in a row |
//! | last_ok | when it last answered, ms |
//! | out_pos | all our events up to this position have been delivered or noted in `destination_rooms` |
//! | lease_owner, lease_until | which instance delivers to it, until when (ms) |

use crate::{Result, Tx};

/// How reaching a server goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct Health {
    /// The server.
    pub server: String,
    /// Not before this time, ms.
    pub retry_at: i64,
    /// Failures in a row.
    pub fails: i64,
    /// Last answer, ms.
    pub last_ok: i64,
}

sql!(FAILING, "SELECT server, retry_at, fails, last_ok FROM destinations WHERE fails > 0");
sql!(
    SET_HEALTH,
    "
    INSERT INTO destinations (server, retry_at, fails, last_ok, out_pos, lease_until) VALUES ($1, $2, $3, $4, -1, 0)
    ON CONFLICT (server) DO UPDATE SET retry_at = excluded.retry_at, fails = excluded.fails, last_ok = excluded.last_ok"
);

/// Servers that did not answer last time.
///
/// # Errors
/// The driver's.
pub async fn failing(tx: &mut Tx) -> Result<Vec<Health>> {
    fetch_all!(tx, FAILING)
}

/// Store how reaching a server goes.
///
/// # Errors
/// The driver's.
pub async fn set_health(tx: &mut Tx, health: &Health) -> Result<()> {
    execute!(tx, SET_HEALTH, health.server.as_str(), health.retry_at, health.fails, health.last_ok)?;
    Ok(())
}
