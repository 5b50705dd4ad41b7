//! A user publishes the keys by which they vouch for their devices and for others.
//!
//! The first keys are taken as they come, and the same keys again; to replace or add keys the user must prove their identity anew
//! (MSC3967). Whether they did is the caller's matter; the rule is kept here, under the user's lock.
//!
//! Source: Client-Server API, "Cross-signing", `POST /keys/device_signing/upload`.

use ruma::{UserId, encryption::CrossSigningKey, serde::Raw};
use storage::{Tx, cross_signing, device_changes, device_changes::NewChange, device_keys, locks};

use super::{Keys, signed_json};
use crate::{Error, Result, accounts::User, error::Code};

/// One cross-signing key.
const KEY_BYTES_MAX: usize = 64 << 10;
pub(super) const MASTER: &str = "master";
const SELF_SIGNING: &str = "self_signing";
const USER_SIGNING: &str = "user_signing";

/// The keys a user publishes.
#[derive(Debug, Clone, Default)]
pub struct Identity {
    /// Signs the other two.
    pub master: Option<Raw<CrossSigningKey>>,
    /// Signs the user's devices.
    pub self_signing: Option<Raw<CrossSigningKey>>,
    /// Signs other users' master keys.
    pub user_signing: Option<Raw<CrossSigningKey>>,
}

/// What came of publishing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// The keys are stored.
    Stored,
    /// Nothing was stored: the user must prove their identity first.
    ProofNeeded,
}

/// A key found well-formed.
pub(super) struct WellFormed {
    pub(super) usage: &'static str,
    pub(super) public_key: String,
    pub(super) object: ruma::CanonicalJsonObject,
}

impl Keys {
    /// Publish cross-signing keys. `is_proven`: the user has just proved their identity, or need not (application services).
    ///
    /// # Errors
    /// [`Error::MissingParam`] when no master key is known; `M_INVALID_SIGNATURE` when the master key did not sign the others;
    /// [`Error::Forbidden`] when a key is named like a device. Then nothing was stored.
    pub async fn publish_identity(&self, user: &User, identity: &Identity, is_proven: bool) -> Result<Published> {
        let given = [
            (MASTER, &identity.master),
            (SELF_SIGNING, &identity.self_signing),
            (USER_SIGNING, &identity.user_signing),
        ];
        let mut keys = Vec::new();
        for (usage, raw) in given {
            if let Some(raw) = raw {
                keys.push(well_formed(&user.user_id, usage, raw)?);
            }
        }
        let nids = self.change_numbers(1).await?;
        let mut tx = self.cx.store.begin().await?;
        locks::user(&mut tx, user.nid).await?;
        let known = cross_signing::of_users(&mut tx, &[user.nid]).await?;
        let new: Vec<&WellFormed> = keys.iter().filter(|key| !is_known(&known, key)).collect();
        if new.is_empty() && (!keys.is_empty() || known.iter().any(|key| key.usage == MASTER)) {
            tx.rollback().await?;
            return Ok(Published::Stored);
        }
        check(&mut tx, user, &keys, &known).await?;
        if !is_proven && known.iter().any(|key| key.usage == MASTER) {
            tx.rollback().await?;
            return Ok(Published::ProofNeeded);
        }
        store(&mut tx, user.nid, &new, &known).await?;
        let change = NewChange { nid: nids.start, user_nid: user.nid, device_id: "", viewer_nid: 0 };
        device_changes::put(&mut tx, &[change]).await?;
        self.publish(tx.commit().await?, user.nid);
        Ok(Published::Stored)
    }
}

/// Whether a key says whose it is and what for, and holds one ed25519 key named for itself.
pub(super) fn well_formed(user_id: &UserId, usage: &'static str, raw: &Raw<CrossSigningKey>) -> Result<WellFormed> {
    if raw.json().get().len() > KEY_BYTES_MAX {
        return Err(Error::TooLarge(format!("the {usage} key is larger than {KEY_BYTES_MAX} bytes")));
    }
    let key = raw.deserialize().map_err(|error| Error::invalid(format!("the {usage} key: {error}")))?;
    if key.user_id != user_id {
        return Err(Error::InvalidParam(format!("the {usage} key belongs to another user")));
    }
    if !key.usage.iter().any(|given| given.as_ref() == usage) {
        return Err(Error::InvalidParam(format!("the {usage} key is for another usage")));
    }
    let mut all = key.keys.iter();
    let (Some((id, public_key)), None) = (all.next(), all.next()) else {
        return Err(Error::InvalidParam(format!("the {usage} key must hold exactly one key")));
    };
    if id.as_str() != format!("ed25519:{public_key}") {
        return Err(Error::InvalidParam(format!("the {usage} key is not an ed25519 key named for itself")));
    }
    Ok(WellFormed { usage, public_key: public_key.clone(), object: signed_json::object(raw)? })
}

fn is_known(known: &[cross_signing::CrossSigningKey], key: &WellFormed) -> bool {
    known.iter().any(|known| known.usage == key.usage && known.public_key == key.public_key)
}

/// Whether the master key signed the others and no key is named like a device.
async fn check(tx: &mut Tx, user: &User, keys: &[WellFormed], known: &[cross_signing::CrossSigningKey]) -> Result<()> {
    let given = keys.iter().find(|key| key.usage == MASTER).map(|key| key.public_key.as_str());
    let stored = known.iter().find(|key| key.usage == MASTER).map(|key| key.public_key.as_str());
    let master = given.or(stored).ok_or(Error::MissingParam("master_key"))?;
    let master_id = format!("ed25519:{master}");
    for key in keys.iter().filter(|key| key.usage != MASTER) {
        let signature = signed_json::signature(&key.object, user.user_id.as_str(), &master_id);
        if !signature.is_some_and(|signature| signed_json::is_signed(&key.object, master, signature)) {
            let words = format!("the {} key is not signed by the master key", key.usage);
            return Err(Error::Specific(Code::InvalidSignature, words));
        }
    }
    let devices = device_keys::devices_of(tx, &[user.nid]).await?;
    if devices.iter().any(|(_, device)| keys.iter().any(|key| key.public_key == *device)) {
        return Err(Error::forbidden("a device has this key for its name"));
    }
    Ok(())
}

/// A new master key ends what the old one signed.
async fn store(
    tx: &mut Tx,
    user_nid: i64,
    new: &[&WellFormed],
    known: &[cross_signing::CrossSigningKey],
) -> Result<()> {
    let has_new_master = new.iter().any(|key| key.usage == MASTER);
    for old in known {
        let is_replaced = new.iter().any(|key| key.usage == old.usage);
        if is_replaced || has_new_master {
            cross_signing::forget_target(tx, user_nid, &old.public_key).await?;
        }
        if has_new_master && !is_replaced {
            cross_signing::remove(tx, user_nid, &old.usage).await?;
        }
    }
    for key in new {
        cross_signing::put(tx, &row(user_nid, key)?).await?;
    }
    Ok(())
}

pub(super) fn row(user_nid: i64, key: &WellFormed) -> Result<cross_signing::CrossSigningKey> {
    let body = serde_json::to_string(&key.object).map_err(Error::internal)?;
    Ok(cross_signing::CrossSigningKey {
        user_nid,
        usage: key.usage.to_owned(),
        public_key: key.public_key.clone(),
        body,
    })
}
