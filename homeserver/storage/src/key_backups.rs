//! Tables `key_backup_versions` and `key_backups`: room keys that clients keep with us, encrypted.
//!
//! | column of `key_backup_versions` | meaning |
//! |---|---|
//! | user_nid, version | key; versions of a user count up from 1, deleted ones included |
//! | algorithm, auth_data | what the client said; auth_data is JSON |
//! | etag | counts the changes of the backup's keys |
//! | count | keys in the backup |
//! | is_deleted | true when it was deleted; the row stays so that its number is not given again |

use crate::{Result, Tx, numbers::json_list};

/// A backup.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Version {
    /// Its number.
    pub version: i64,
    /// Its algorithm.
    pub algorithm: String,
    /// JSON.
    pub auth_data: String,
    /// Counts changes of its keys.
    pub etag: i64,
    /// Keys in it.
    pub count: i64,
    /// True when it was deleted.
    pub is_deleted: bool,
}

/// A key in a backup.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct BackedUpKey {
    /// The room whose events it decrypts.
    pub room_id: String,
    /// The session.
    pub session_id: String,
    /// The first event it decrypts.
    pub first_message_index: i64,
    /// How often it was forwarded.
    pub forwarded_count: i64,
    /// Whether the device that backed it up trusted the device it came from.
    pub is_verified: bool,
    /// The whole entry as uploaded, JSON.
    pub body: String,
}

/// Which keys of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part<'a> {
    /// All.
    All,
    /// Those of a room.
    Room(&'a str),
    /// Of a room, one session.
    Session(&'a str, &'a str),
}

impl<'a> Part<'a> {
    fn names(self) -> (Option<&'a str>, Option<&'a str>) {
        match self {
            Part::All => (None, None),
            Part::Room(room) => (Some(room), None),
            Part::Session(room, session) => (Some(room), Some(session)),
        }
    }
}

sql!(
    CREATE,
    "
    INSERT INTO key_backup_versions (user_nid, version, algorithm, auth_data, etag, count, is_deleted)
    SELECT $1, coalesce(max(version), 0) + 1, $2, $3, 0, 0, FALSE FROM key_backup_versions WHERE user_nid = $1
    RETURNING version"
);
sql!(
    LATEST,
    "
    SELECT version, algorithm, auth_data, etag, count, is_deleted FROM key_backup_versions
    WHERE user_nid = $1 AND NOT is_deleted ORDER BY version DESC LIMIT 1"
);
sql!(
    BY_VERSION,
    "
    SELECT version, algorithm, auth_data, etag, count, is_deleted FROM key_backup_versions
    WHERE user_nid = $1 AND version = $2"
);
sql!(SET_AUTH_DATA, "UPDATE key_backup_versions SET auth_data = $3 WHERE user_nid = $1 AND version = $2");
sql!(
    DELETE_VERSION,
    "
    UPDATE key_backup_versions SET is_deleted = TRUE, count = 0, auth_data = '{}' WHERE user_nid = $1 AND version = $2"
);
sql!(DELETE_KEYS_OF, "DELETE FROM key_backups WHERE user_nid = $1 AND version = $2");
sql!(
    COUNT_CHANGE,
    "
    UPDATE key_backup_versions SET etag = etag + 1, count = count + $3 WHERE user_nid = $1 AND version = $2
    RETURNING etag, count"
);
sql!(PRESENT,
    sqlite: "
        SELECT count(*) AS count FROM json_each($3) AS r JOIN key_backups AS k
        ON k.user_nid = $1 AND k.version = $2 AND k.room_id = json_extract(r.value, '$[0]')
            AND k.session_id = json_extract(r.value, '$[1]')",
    // A JSON list is taken apart differently.
    postgres: "
        SELECT count(*) AS count FROM json_each($3) AS r JOIN key_backups AS k
        ON k.user_nid = $1 AND k.version = $2 AND k.room_id = r.value::json->>0 AND k.session_id = r.value::json->>1");
// The better key stays: verified before unverified, then the one that decrypts more, then the one less often forwarded.
sql!(PUT,
    sqlite: "
        INSERT INTO key_backups (user_nid, version, room_id, session_id, first_message_index, forwarded_count,
            is_verified, body)
        SELECT $1, $2, json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
            json_extract(value, '$[3]'), json_extract(value, '$[4]'), json_extract(value, '$[5]')
        FROM json_each($3) WHERE TRUE
        ON CONFLICT (user_nid, version, room_id, session_id) DO UPDATE SET
            first_message_index = excluded.first_message_index, forwarded_count = excluded.forwarded_count,
            is_verified = excluded.is_verified, body = excluded.body
        WHERE excluded.is_verified AND NOT key_backups.is_verified
            OR excluded.is_verified = key_backups.is_verified
                AND (excluded.first_message_index < key_backups.first_message_index
                    OR excluded.first_message_index = key_backups.first_message_index
                        AND excluded.forwarded_count < key_backups.forwarded_count)",
    // A JSON list is taken apart differently.
    postgres: "
        INSERT INTO key_backups (user_nid, version, room_id, session_id, first_message_index, forwarded_count,
            is_verified, body)
        SELECT $1, $2, value::json->>0, value::json->>1, (value::json->>2)::bigint, (value::json->>3)::bigint,
            (value::json->>4)::boolean, value::json->>5
        FROM json_each($3)
        ON CONFLICT (user_nid, version, room_id, session_id) DO UPDATE SET
            first_message_index = excluded.first_message_index, forwarded_count = excluded.forwarded_count,
            is_verified = excluded.is_verified, body = excluded.body
        WHERE excluded.is_verified AND NOT key_backups.is_verified
            OR excluded.is_verified = key_backups.is_verified
                AND (excluded.first_message_index < key_backups.first_message_index
                    OR excluded.first_message_index = key_backups.first_message_index
                        AND excluded.forwarded_count < key_backups.forwarded_count)");
sql!(
    KEYS,
    "
    SELECT room_id, session_id, first_message_index, forwarded_count, is_verified, body FROM key_backups
    WHERE user_nid = $1 AND version = $2 AND room_id = coalesce($3, room_id) AND session_id = coalesce($4, session_id)
    ORDER BY room_id, session_id"
);
sql!(
    REMOVE,
    "
    DELETE FROM key_backups
    WHERE user_nid = $1 AND version = $2 AND room_id = coalesce($3, room_id) AND session_id = coalesce($4, session_id)"
);

/// Begin a new backup, which becomes the user's latest. Returns its number.
///
/// # Errors
/// The driver's.
pub async fn create(tx: &mut Tx, user_nid: i64, algorithm: &str, auth_data: &str) -> Result<i64> {
    let row: Option<(i64,)> = fetch_optional!(tx, CREATE, user_nid, algorithm, auth_data)?;
    Ok(row.map_or(1, |(version,)| version))
}

/// The user's latest backup that was not deleted.
///
/// # Errors
/// The driver's.
pub async fn latest(tx: &mut Tx, user_nid: i64) -> Result<Option<Version>> {
    fetch_optional!(tx, LATEST, user_nid)
}

/// A backup by its number, deleted ones too.
///
/// # Errors
/// The driver's.
pub async fn by_version(tx: &mut Tx, user_nid: i64, version: i64) -> Result<Option<Version>> {
    fetch_optional!(tx, BY_VERSION, user_nid, version)
}

/// Replace a backup's `auth_data`.
///
/// # Errors
/// The driver's.
pub async fn set_auth_data(tx: &mut Tx, user_nid: i64, version: i64, auth_data: &str) -> Result<()> {
    execute!(tx, SET_AUTH_DATA, user_nid, version, auth_data)?;
    Ok(())
}

/// Delete a backup and its keys.
///
/// # Errors
/// The driver's.
pub async fn delete(tx: &mut Tx, user_nid: i64, version: i64) -> Result<()> {
    execute!(tx, DELETE_KEYS_OF, user_nid, version)?;
    execute!(tx, DELETE_VERSION, user_nid, version)?;
    Ok(())
}

/// Store keys, each unless a better one of its session is there. The caller holds [`crate::locks::user`]. Returns how many
/// are new, and whether anything changed.
///
/// # Errors
/// The driver's.
pub async fn put(tx: &mut Tx, user_nid: i64, version: i64, keys: &[BackedUpKey]) -> Result<(i64, bool)> {
    let names: Vec<_> = keys.iter().map(|k| (&k.room_id, &k.session_id)).collect();
    let present: Option<(i64,)> = fetch_optional!(tx, PRESENT, user_nid, version, json_list(&names))?;
    let rows: Vec<_> = keys
        .iter()
        .map(|k| (&k.room_id, &k.session_id, k.first_message_index, k.forwarded_count, k.is_verified, &k.body))
        .collect();
    let changed = execute!(tx, PUT, user_nid, version, json_list(&rows))?;
    let new = i64::try_from(keys.len()).unwrap_or(i64::MAX) - present.map_or(0, |(count,)| count);
    Ok((new, changed > 0))
}

/// Say that a backup's keys changed, by `more` keys (negative: fewer). Returns its new (etag, count).
///
/// # Errors
/// The driver's.
pub async fn count_change(tx: &mut Tx, user_nid: i64, version: i64, more: i64) -> Result<(i64, i64)> {
    Ok(fetch_optional!(tx, COUNT_CHANGE, user_nid, version, more)?.unwrap_or((0, 0)))
}

/// Keys of a backup, ordered by room and session.
///
/// # Errors
/// The driver's.
pub async fn keys(tx: &mut Tx, user_nid: i64, version: i64, part: Part<'_>) -> Result<Vec<BackedUpKey>> {
    let (room, session) = part.names();
    fetch_all!(tx, KEYS, user_nid, version, room, session)
}

/// Remove keys of a backup. Returns how many.
///
/// # Errors
/// The driver's.
pub async fn remove(tx: &mut Tx, user_nid: i64, version: i64, part: Part<'_>) -> Result<u64> {
    let (room, session) = part.names();
    execute!(tx, REMOVE, user_nid, version, room, session)
}
