//! Tables `one_time_keys` and `fallback_keys`: what somebody takes to open an encrypted session with a device.
//!
//! | column of `one_time_keys` | meaning |
//! |---|---|
//! | nid | number given by us, in no order |
//! | user_nid, device_id, algorithm, key_id | the key's name |
//! | seq | grows with each upload of the device; keys are given out in this order |
//! | body | the key, JSON |
//! | claimed_day | days since 1970 when it was given out; NULL while it waits |
//!
//! A key that was given out stays for some days, so that a client that uploads it again (it did not hear our answer)
//! cannot make us give it out twice.

use crate::{Result, Tx, numbers::json_list};

/// A key as named in requests.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct ClaimedKey {
    /// The device's user.
    pub user_nid: i64,
    /// The device.
    pub device_id: String,
    /// Such as `signed_curve25519`.
    pub algorithm: String,
    /// The part of the key's name after the colon.
    pub key_id: String,
    /// The key, JSON.
    pub body: String,
}

/// What a device has of one algorithm.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Supply {
    /// Such as `signed_curve25519`.
    pub algorithm: String,
    /// One-time keys waiting; 0 for fallback keys.
    pub count: i64,
    /// True for a fallback key that was not used.
    pub is_fallback: bool,
}

/// A one-time key the device uploaded before.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Stored {
    /// Such as `signed_curve25519`.
    pub algorithm: String,
    /// The part of the key's name after the colon.
    pub key_id: String,
    /// The key, JSON.
    pub body: String,
    /// True when it was given out.
    pub is_claimed: bool,
}

sql!(
    NAMED,
    "
    SELECT algorithm, key_id, body, claimed_day IS NOT NULL AS is_claimed FROM one_time_keys
    WHERE user_nid = $1 AND device_id = $2 AND key_id IN (SELECT value FROM json_each($3))"
);
sql!(
    LAST_SEQ,
    "
    SELECT coalesce(max(seq), 0) AS seq FROM one_time_keys
    WHERE user_nid = $1 AND device_id = $2 AND claimed_day IS NULL"
);
sql!(ADD,
    sqlite: "
        INSERT INTO one_time_keys (nid, user_nid, device_id, seq, algorithm, key_id, body, claimed_day)
        SELECT json_extract(value, '$[0]'), $2, $3, $4, json_extract(value, '$[1]'), json_extract(value, '$[2]'),
            json_extract(value, '$[3]'), NULL FROM json_each($1) WHERE TRUE
        ON CONFLICT (user_nid, device_id, algorithm, key_id)
        DO UPDATE SET body = excluded.body, seq = excluded.seq, claimed_day = NULL
        WHERE one_time_keys.claimed_day IS NOT NULL AND one_time_keys.body <> excluded.body",
    // A JSON list is taken apart differently.
    postgres: "
        INSERT INTO one_time_keys (nid, user_nid, device_id, seq, algorithm, key_id, body, claimed_day)
        SELECT (value::json->>0)::bigint, $2, $3, $4, value::json->>1, value::json->>2, value::json->>3, NULL
        FROM json_each($1)
        ON CONFLICT (user_nid, device_id, algorithm, key_id)
        DO UPDATE SET body = excluded.body, seq = excluded.seq, claimed_day = NULL
        WHERE one_time_keys.claimed_day IS NOT NULL AND one_time_keys.body <> excluded.body");
sql!(CLAIM,
    sqlite: "
        UPDATE one_time_keys SET claimed_day = $2 WHERE nid IN (
            SELECT (SELECT k.nid FROM one_time_keys AS k
                WHERE k.user_nid = json_extract(r.value, '$[0]') AND k.device_id = json_extract(r.value, '$[1]')
                    AND k.algorithm = json_extract(r.value, '$[2]') AND k.claimed_day IS NULL
                ORDER BY k.seq, k.nid LIMIT 1)
            FROM json_each($1) AS r)
        RETURNING user_nid, device_id, algorithm, key_id, body",
    // Claimers do not wait for each other: a key that one is taking is invisible to the next.
    postgres: "
        WITH wanted AS (
            SELECT (value::json->>0)::bigint AS user_nid, value::json->>1 AS device_id, value::json->>2 AS algorithm
            FROM json_each($1)
        ), picked AS MATERIALIZED (
            SELECT o.nid FROM wanted AS w JOIN LATERAL (
                SELECT k.nid FROM one_time_keys AS k
                WHERE k.user_nid = w.user_nid AND k.device_id = w.device_id AND k.algorithm = w.algorithm
                    AND k.claimed_day IS NULL
                ORDER BY k.seq, k.nid LIMIT 1 FOR UPDATE SKIP LOCKED) AS o ON TRUE
        )
        UPDATE one_time_keys AS t SET claimed_day = $2 FROM picked WHERE t.nid = picked.nid
        RETURNING t.user_nid, t.device_id, t.algorithm, t.key_id, t.body");
sql!(
    PUT_FALLBACK,
    "
    INSERT INTO fallback_keys (user_nid, device_id, algorithm, key_id, body, is_used)
    VALUES ($1, $2, $3, $4, $5, FALSE)
    ON CONFLICT (user_nid, device_id, algorithm)
    DO UPDATE SET key_id = excluded.key_id, body = excluded.body, is_used = FALSE
    WHERE fallback_keys.key_id <> excluded.key_id OR fallback_keys.body <> excluded.body"
);
sql!(USE_FALLBACK,
    sqlite: "
        UPDATE fallback_keys SET is_used = TRUE WHERE (user_nid, device_id, algorithm) IN (
            SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]')
            FROM json_each($1))
        RETURNING user_nid, device_id, algorithm, key_id, body",
    // A JSON list is taken apart differently.
    postgres: "
        UPDATE fallback_keys SET is_used = TRUE WHERE (user_nid, device_id, algorithm) IN (
            SELECT (value::json->>0)::bigint, value::json->>1, value::json->>2 FROM json_each($1))
        RETURNING user_nid, device_id, algorithm, key_id, body");
sql!(
    SUPPLY,
    "
    SELECT algorithm, count(*) AS count, FALSE AS is_fallback FROM one_time_keys
    WHERE user_nid = $1 AND device_id = $2 AND claimed_day IS NULL GROUP BY algorithm
    UNION ALL
    SELECT algorithm, 0 AS count, TRUE AS is_fallback FROM fallback_keys
    WHERE user_nid = $1 AND device_id = $2 AND NOT is_used"
);
sql!(FORGET_CLAIMED, "DELETE FROM one_time_keys WHERE claimed_day < $1");

/// Keys of a device with these ids (the parts after the colon).
///
/// # Errors
/// The driver's.
pub async fn named(tx: &mut Tx, user_nid: i64, device_id: &str, key_ids: &[&str]) -> Result<Vec<Stored>> {
    fetch_all!(tx, NAMED, user_nid, device_id, json_list(key_ids))
}

/// Add one-time keys after all the device has: (number, algorithm, key id, body). A key that is there already stays as it is,
/// unless it was given out and this is another key of the same name.
///
/// # Errors
/// The driver's.
pub async fn add(tx: &mut Tx, user_nid: i64, device_id: &str, keys: &[(i64, &str, &str, &str)]) -> Result<()> {
    let last: Option<(i64,)> = fetch_optional!(tx, LAST_SEQ, user_nid, device_id)?;
    let seq = last.map_or(0, |(seq,)| seq) + 1;
    execute!(tx, ADD, json_list(keys), user_nid, device_id, seq)?;
    Ok(())
}

/// Take the oldest waiting key for each (user, device, algorithm). Wherever several ask at once, each key is given to one.
/// `day`: days since 1970.
///
/// # Errors
/// The driver's.
pub async fn claim(tx: &mut Tx, wanted: &[(i64, &str, &str)], day: i64) -> Result<Vec<ClaimedKey>> {
    fetch_all!(tx, CLAIM, json_list(wanted), day)
}

/// Store a fallback key in place of the device's last one of its algorithm; the same key again changes nothing.
///
/// # Errors
/// The driver's.
pub async fn put_fallback(tx: &mut Tx, key: &ClaimedKey) -> Result<()> {
    let (device, algorithm) = (key.device_id.as_str(), key.algorithm.as_str());
    execute!(tx, PUT_FALLBACK, key.user_nid, device, algorithm, key.key_id.as_str(), key.body.as_str())?;
    Ok(())
}

/// The fallback keys for each (user, device, algorithm), which count as used from now on.
///
/// # Errors
/// The driver's.
pub async fn use_fallback(tx: &mut Tx, wanted: &[(i64, &str, &str)]) -> Result<Vec<ClaimedKey>> {
    fetch_all!(tx, USE_FALLBACK, json_list(wanted))
}

/// What a device has left.
///
/// # Errors
/// The driver's.
pub async fn supply(tx: &mut Tx, user_nid: i64, device_id: &str) -> Result<Vec<Supply>> {
    fetch_all!(tx, SUPPLY, user_nid, device_id)
}

/// Forget keys given out before `day` (days since 1970). Returns how many.
///
/// # Errors
/// The driver's.
pub async fn forget_claimed(tx: &mut Tx, day: i64) -> Result<u64> {
    execute!(tx, FORGET_CLAIMED, day)
}
