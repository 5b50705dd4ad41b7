//! Tables `signing_keys`, `server_keys`, `server_key_answers`: the keys servers sign with, ours and the others'.
//!
//! | table | meaning |
//! |---|---|
//! | signing_keys | our own, private halves included; `slot` is 1 for the key in use and NULL for expired ones, `expired_at` in ms |
//! | server_keys | public keys of other servers, kept for ever: old events are checked with old keys |
//! | server_key_answers | the last signed answer of each server, which a notary repeats |

use crate::{Result, Tx, numbers::json_list};

/// One of our own keys.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct OwnKey {
    /// The part of the key's id after `ed25519:`.
    pub version: String,
    /// The PKCS#8 document.
    pub document: Vec<u8>,
    /// When it was replaced, milliseconds since 1970; `None` for the key in use.
    pub expired_at: Option<i64>,
}

/// A public key of another server.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct ServerKey {
    /// Whose.
    pub server: String,
    /// `ed25519:VERSION`.
    pub key_id: String,
    /// The key, unpadded base64.
    pub public: String,
    /// Until when the server vouched for it, milliseconds since 1970.
    pub valid_until: i64,
    /// When the server stopped using it, for old keys.
    pub expired_at: Option<i64>,
}

/// A signed answer of a server about its keys.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Answer {
    /// Whose.
    pub server: String,
    /// JSON, as signed by the server.
    pub body: String,
    /// When we got it, milliseconds since 1970.
    pub fetched_at: i64,
    /// `valid_until_ts`.
    pub valid_until: i64,
}

sql!(
    OWN_ADD,
    "
    INSERT INTO signing_keys (version, document, slot, expired_at) VALUES ($1, $2, 1, NULL)
    ON CONFLICT (slot) DO NOTHING"
);
sql!(OWN_EXPIRE, "UPDATE signing_keys SET slot = NULL, expired_at = $1 WHERE slot = 1");
sql!(OWN, "SELECT version, document, expired_at FROM signing_keys ORDER BY expired_at, version");
sql!(
    PUT,
    "
    INSERT INTO server_keys (server, key_id, public, valid_until, expired_at) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (server, key_id) DO UPDATE SET public = excluded.public, expired_at = excluded.expired_at,
        valid_until = CASE WHEN excluded.valid_until > server_keys.valid_until AND excluded.expired_at IS NULL
            THEN excluded.valid_until ELSE server_keys.valid_until END"
);
sql!(
    OF_SERVERS,
    "
    SELECT server, key_id, public, valid_until, expired_at FROM server_keys
    WHERE server IN (SELECT value FROM json_each($1))"
);
sql!(
    ANSWER_PUT,
    "
    INSERT INTO server_key_answers (server, body, fetched_at, valid_until) VALUES ($1, $2, $3, $4)
    ON CONFLICT (server) DO UPDATE SET body = excluded.body, fetched_at = excluded.fetched_at,
        valid_until = excluded.valid_until"
);
sql!(ANSWER, "SELECT server, body, fetched_at, valid_until FROM server_key_answers WHERE server = $1");

/// Store a key of our own as the one in use. False when there is one already (another instance was first).
///
/// # Errors
/// The driver's.
pub async fn add_own(tx: &mut Tx, version: &str, document: &[u8]) -> Result<bool> {
    Ok(execute!(tx, OWN_ADD, version, document)? == 1)
}

/// Stop using our key, from `at` (ms) on.
///
/// # Errors
/// The driver's.
pub async fn expire_own(tx: &mut Tx, at: i64) -> Result<()> {
    execute!(tx, OWN_EXPIRE, at)?;
    Ok(())
}

/// Our own keys, of which at most one is not expired.
///
/// # Errors
/// The driver's.
pub async fn own(tx: &mut Tx) -> Result<Vec<OwnKey>> {
    fetch_all!(tx, OWN)
}

/// Store keys of other servers. Validity only grows; a key that came back from old age is in use again.
///
/// # Errors
/// The driver's.
pub async fn put(tx: &mut Tx, keys: &[ServerKey]) -> Result<()> {
    for key in keys {
        execute!(
            tx,
            PUT,
            key.server.as_str(),
            key.key_id.as_str(),
            key.public.as_str(),
            key.valid_until,
            key.expired_at
        )?;
    }
    Ok(())
}

/// All keys known of these servers.
///
/// # Errors
/// The driver's.
pub async fn of_servers<T: serde::Serialize>(tx: &mut Tx, servers: &[T]) -> Result<Vec<ServerKey>> {
    fetch_all!(tx, OF_SERVERS, json_list(servers))
}

/// Keep a server's signed answer.
///
/// # Errors
/// The driver's.
pub async fn put_answer(tx: &mut Tx, answer: &Answer) -> Result<()> {
    execute!(tx, ANSWER_PUT, answer.server.as_str(), answer.body.as_str(), answer.fetched_at, answer.valid_until)?;
    Ok(())
}

/// The last signed answer of a server.
///
/// # Errors
/// The driver's.
pub async fn answer(tx: &mut Tx, server: &str) -> Result<Option<Answer>> {
    fetch_optional!(tx, ANSWER, server)
}
