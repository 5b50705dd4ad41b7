//! Tables `cross_signing_keys` and `key_signatures`: keys by which users vouch for their devices and for each other.
//!
//! | column of `cross_signing_keys` | meaning |
//! |---|---|
//! | user_nid, usage | key; usage is `master`, `self_signing` or `user_signing` |
//! | public_key | unpadded base64 |
//! | body | the key as uploaded, JSON |
//!
//! `key_signatures` has one row for each signature that was added to a key after its upload: on the device or public key
//! `target` of `user_nid`, made by key `key_id` (`ed25519:…`) of `signer_nid`.

use crate::{Result, Tx, numbers::json_list};

/// A cross-signing key.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct CrossSigningKey {
    /// Its owner.
    pub user_nid: i64,
    /// `master`, `self_signing` or `user_signing`.
    pub usage: String,
    /// Unpadded base64.
    pub public_key: String,
    /// The key as uploaded, JSON.
    pub body: String,
}

/// A signature on somebody's key.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Signature {
    /// The owner of the signed key.
    pub user_nid: i64,
    /// Device id or public key.
    pub target: String,
    /// Who signed.
    pub signer_nid: i64,
    /// With which key: `ed25519:…`.
    pub key_id: String,
    /// Unpadded base64.
    pub signature: String,
}

sql!(
    OF_USERS,
    "
    SELECT user_nid, usage, public_key, body FROM cross_signing_keys
    WHERE user_nid IN (SELECT CAST(value AS BIGINT) FROM json_each($1))"
);
sql!(
    PUT,
    "
    INSERT INTO cross_signing_keys (user_nid, usage, public_key, body) VALUES ($1, $2, $3, $4)
    ON CONFLICT (user_nid, usage) DO UPDATE SET public_key = excluded.public_key, body = excluded.body"
);
sql!(REMOVE, "DELETE FROM cross_signing_keys WHERE user_nid = $1 AND usage = $2");
sql!(
    WITH_SIGNATURES,
    "
    SELECT user_nid, usage, public_key AS target, CAST(0 AS BIGINT) AS signer_nid, '' AS key_id, body AS text
    FROM cross_signing_keys WHERE user_nid IN (SELECT CAST(value AS BIGINT) FROM json_each($1))
    UNION ALL
    SELECT user_nid, '' AS usage, target, signer_nid, key_id, signature AS text
    FROM key_signatures
    WHERE user_nid IN (SELECT CAST(value AS BIGINT) FROM json_each($1)) AND (signer_nid = user_nid OR signer_nid = $2)"
);
sql!(
    SIGN,
    "
    INSERT INTO key_signatures (user_nid, target, signer_nid, key_id, signature) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (user_nid, target, signer_nid, key_id) DO UPDATE SET signature = excluded.signature
    WHERE key_signatures.signature <> excluded.signature"
);
sql!(FORGET_TARGET, "DELETE FROM key_signatures WHERE user_nid = $1 AND target = $2");

/// The cross-signing keys of users, in no order.
///
/// # Errors
/// The driver's.
pub async fn of_users(tx: &mut Tx, users: &[i64]) -> Result<Vec<CrossSigningKey>> {
    fetch_all!(tx, OF_USERS, json_list(users))
}

/// Store a key in place of the user's last one of its usage.
///
/// # Errors
/// The driver's.
pub async fn put(tx: &mut Tx, key: &CrossSigningKey) -> Result<()> {
    execute!(tx, PUT, key.user_nid, key.usage.as_str(), key.public_key.as_str(), key.body.as_str())?;
    Ok(())
}

/// Remove a user's key of `usage`.
///
/// # Errors
/// The driver's.
pub async fn remove(tx: &mut Tx, user_nid: i64, usage: &str) -> Result<()> {
    execute!(tx, REMOVE, user_nid, usage)?;
    Ok(())
}

/// The cross-signing keys of users, as [`of_users`], and the signatures on any of their keys, of devices too, made by themselves or
/// by `viewer_nid` (0: nobody else). One statement.
///
/// # Errors
/// The driver's.
pub async fn with_signatures(
    tx: &mut Tx,
    users: &[i64],
    viewer_nid: i64,
) -> Result<(Vec<CrossSigningKey>, Vec<Signature>)> {
    let rows: Vec<(i64, String, String, i64, String, String)> =
        fetch_all!(tx, WITH_SIGNATURES, json_list(users), viewer_nid)?;
    let (mut keys, mut signatures) = (Vec::new(), Vec::new());
    for (user_nid, usage, target, signer_nid, key_id, text) in rows {
        if usage.is_empty() {
            signatures.push(Signature { user_nid, target, signer_nid, key_id, signature: text });
        } else {
            keys.push(CrossSigningKey { user_nid, usage, public_key: target, body: text });
        }
    }
    Ok((keys, signatures))
}

/// Add a signature. False when it was there already.
///
/// # Errors
/// The driver's.
pub async fn sign(tx: &mut Tx, s: &Signature) -> Result<bool> {
    let (target, key_id) = (s.target.as_str(), s.key_id.as_str());
    Ok(execute!(tx, SIGN, s.user_nid, target, s.signer_nid, key_id, s.signature.as_str())? == 1)
}

/// Forget all signatures on a key that went.
///
/// # Errors
/// The driver's.
pub async fn forget_target(tx: &mut Tx, user_nid: i64, target: &str) -> Result<()> {
    execute!(tx, FORGET_TARGET, user_nid, target)?;
    Ok(())
}
