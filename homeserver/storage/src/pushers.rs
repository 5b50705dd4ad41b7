//! Table `pushers`: where to send a user's notifications, and how far each was served.
//!
//! | column | meaning |
//! |---|---|
//! | user_nid, app_id, pushkey | key |
//! | body | the pusher as the client set it, JSON |
//! | url | of the push gateway; empty for other kinds than `http` |
//! | device_id | the device that set it; the pusher goes away with it |
//! | done_pos | everything up to this position was sent or needs no sending |
//! | failing_since_ts | when the first of the present failures was, or nothing |
//! | retry_ts | not before this time |
//! | failures | present failures in a row |

use crate::{Result, Tx, numbers::json_list};

/// A pusher.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Pusher {
    /// Whose notifications.
    pub user_nid: i64,
    /// The application.
    pub app_id: String,
    /// The application's name for the receiving device.
    pub pushkey: String,
    /// The pusher as the client set it, JSON.
    pub body: String,
    /// The push gateway; empty for other kinds than `http`.
    pub url: String,
    /// The device that set it.
    pub device_id: Option<String>,
    /// When it was set, milliseconds since 1970.
    pub created_ts: i64,
    /// Position up to which it was served.
    pub done_pos: i64,
    /// When the present failures began.
    pub failing_since_ts: Option<i64>,
    /// Not to be tried before.
    pub retry_ts: i64,
    /// Present failures in a row.
    pub failures: i64,
}

sql!(
    PUT,
    "
    INSERT INTO pushers (user_nid, app_id, pushkey, body, url, device_id, created_ts, done_pos, failing_since_ts, retry_ts, failures)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, NULL, 0, 0)
    ON CONFLICT (user_nid, app_id, pushkey) DO UPDATE SET body = excluded.body, url = excluded.url,
        device_id = excluded.device_id, failing_since_ts = NULL, retry_ts = 0, failures = 0"
);
sql!(
    OF_USER,
    "
    SELECT user_nid, app_id, pushkey, body, url, device_id, created_ts, done_pos, failing_since_ts, retry_ts, failures
    FROM pushers WHERE user_nid = $1 ORDER BY created_ts, app_id, pushkey"
);
sql!(
    HTTP,
    "
    SELECT user_nid, app_id, pushkey, body, url, device_id, created_ts, done_pos, failing_since_ts, retry_ts, failures
    FROM pushers WHERE url <> '' ORDER BY user_nid, app_id, pushkey"
);
sql!(REMOVE, "DELETE FROM pushers WHERE user_nid = $1 AND app_id = $2 AND pushkey = $3");
sql!(REMOVE_OF_OTHERS, "DELETE FROM pushers WHERE app_id = $1 AND pushkey = $2 AND user_nid <> $3");
sql!(
    REMOVE_OF_DEVICES,
    "
    DELETE FROM pushers WHERE user_nid = $1 AND device_id IN (SELECT value FROM json_each($2))"
);
sql!(
    REMOVE_BUT_DEVICE,
    "
    DELETE FROM pushers WHERE user_nid = $1 AND (device_id IS NULL OR device_id <> $2)"
);
sql!(
    DONE,
    "
    UPDATE pushers SET done_pos = $4, failing_since_ts = NULL, retry_ts = 0, failures = 0
    WHERE user_nid = $1 AND app_id = $2 AND pushkey = $3 AND done_pos < $4"
);
// Whoever moves retry_ts first serves the pusher; the others see it taken, or served.
sql!(
    CLAIM,
    "
    UPDATE pushers SET retry_ts = $6
    WHERE user_nid = $1 AND app_id = $2 AND pushkey = $3 AND done_pos < $4 AND retry_ts <= $5"
);
sql!(
    FAILED,
    "
    UPDATE pushers SET failing_since_ts = coalesce(failing_since_ts, $4), retry_ts = $5, failures = failures + 1
    WHERE user_nid = $1 AND app_id = $2 AND pushkey = $3"
);

/// Store a pusher; one that is there keeps its place in the stream and forgets its failures.
///
/// # Errors
/// The driver's.
pub async fn put(tx: &mut Tx, pusher: &Pusher) -> Result<()> {
    execute!(
        tx,
        PUT,
        pusher.user_nid,
        pusher.app_id.as_str(),
        pusher.pushkey.as_str(),
        pusher.body.as_str(),
        pusher.url.as_str(),
        pusher.device_id.as_deref(),
        pusher.created_ts,
        pusher.done_pos,
    )?;
    Ok(())
}

/// A user's pushers, the oldest first.
///
/// # Errors
/// The driver's.
pub async fn of_user(tx: &mut Tx, user_nid: i64) -> Result<Vec<Pusher>> {
    fetch_all!(tx, OF_USER, user_nid)
}

/// Every pusher with a push gateway.
///
/// # Errors
/// The driver's.
pub async fn http(tx: &mut Tx) -> Result<Vec<Pusher>> {
    fetch_all!(tx, HTTP)
}

/// Remove a pusher. False when there was none.
///
/// # Errors
/// The driver's.
pub async fn remove(tx: &mut Tx, user_nid: i64, app_id: &str, pushkey: &str) -> Result<bool> {
    Ok(execute!(tx, REMOVE, user_nid, app_id, pushkey)? > 0)
}

/// Remove what other users have with this application and push key: the receiving device changed hands.
///
/// # Errors
/// The driver's.
pub async fn remove_of_others(tx: &mut Tx, user_nid: i64, app_id: &str, pushkey: &str) -> Result<u64> {
    execute!(tx, REMOVE_OF_OTHERS, app_id, pushkey, user_nid)
}

/// Remove the pushers that these devices of a user have set.
///
/// # Errors
/// The driver's.
pub async fn remove_of_devices(tx: &mut Tx, user_nid: i64, device_ids: &[&str]) -> Result<u64> {
    execute!(tx, REMOVE_OF_DEVICES, user_nid, json_list(device_ids))
}

/// Remove all pushers of a user but those that `device_id` has set (a changed password).
///
/// # Errors
/// The driver's.
pub async fn remove_but_device(tx: &mut Tx, user_nid: i64, device_id: &str) -> Result<u64> {
    execute!(tx, REMOVE_BUT_DEVICE, user_nid, device_id)
}

/// Take a pusher for serving it the event at `pos`, until `until_ms`. False when another instance has it, or has served it.
///
/// # Errors
/// The driver's.
pub async fn claim(tx: &mut Tx, pusher: &Pusher, pos: i64, now_ms: i64, until_ms: i64) -> Result<bool> {
    let (app_id, pushkey) = (pusher.app_id.as_str(), pusher.pushkey.as_str());
    Ok(execute!(tx, CLAIM, pusher.user_nid, app_id, pushkey, pos, now_ms, until_ms)? == 1)
}

/// A pusher was served up to `pos`.
///
/// # Errors
/// The driver's.
pub async fn done(tx: &mut Tx, pusher: &Pusher, pos: i64) -> Result<()> {
    execute!(tx, DONE, pusher.user_nid, pusher.app_id.as_str(), pusher.pushkey.as_str(), pos)?;
    Ok(())
}

/// A pusher could not be served at `now_ms`; it is tried again at `retry_ts`.
///
/// # Errors
/// The driver's.
pub async fn failed(tx: &mut Tx, pusher: &Pusher, now_ms: i64, retry_ts: i64) -> Result<()> {
    execute!(tx, FAILED, pusher.user_nid, pusher.app_id.as_str(), pusher.pushkey.as_str(), now_ms, retry_ts)?;
    Ok(())
}
