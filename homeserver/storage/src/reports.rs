//! Table `reports`: what users found wrong and told us.
//!
//! | column | meaning |
//! |---|---|
//! | id | key, random |
//! | received_ms | when, milliseconds since 1970 |
//! | reporter_nid | who reports |
//! | room_id, event_id, user_id | what is reported: a room, an event in it, or a user |
//! | reason | in the reporter's words, may be empty |

use crate::{Result, Tx};

/// A report.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Report {
    /// Its id.
    pub id: String,
    /// When it came, milliseconds since 1970.
    pub received_ms: i64,
    /// Who reports.
    pub reporter_nid: i64,
    /// The room, or the room of the event.
    pub room_id: Option<String>,
    /// The event.
    pub event_id: Option<String>,
    /// The user.
    pub user_id: Option<String>,
    /// Why.
    pub reason: String,
}

sql!(
    PUT,
    "
    INSERT INTO reports (id, received_ms, reporter_nid, room_id, event_id, user_id, reason)
    VALUES ($1, $2, $3, $4, $5, $6, $7)"
);
sql!(
    BEFORE,
    "
    SELECT id, received_ms, reporter_nid, room_id, event_id, user_id, reason FROM reports
    WHERE (received_ms, id) < ($1, $2) ORDER BY received_ms DESC, id DESC LIMIT $3"
);

/// Keep a report.
///
/// # Errors
/// The driver's.
pub async fn put(tx: &mut Tx, r: &Report) -> Result<()> {
    execute!(
        tx,
        PUT,
        r.id.as_str(),
        r.received_ms,
        r.reporter_nid,
        r.room_id.as_deref(),
        r.event_id.as_deref(),
        r.user_id.as_deref(),
        r.reason.as_str(),
    )?;
    Ok(())
}

/// At most `limit` reports before a place (time, id), the newest first.
///
/// # Errors
/// The driver's.
pub async fn before(tx: &mut Tx, place: (i64, &str), limit: i64) -> Result<Vec<Report>> {
    fetch_all!(tx, BEFORE, place.0, place.1, limit)
}
