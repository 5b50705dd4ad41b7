//! A user adds signatures to keys: to their devices, to their master key, to other users' master keys.
//!
//! | signed | by |
//! |---|---|
//! | own device | own self-signing key |
//! | own master key | own devices |
//! | another's master key | own user-signing key; shown to the signer alone |
//!
//! Source: Client-Server API, `POST /keys/signatures/upload`.

use std::collections::BTreeMap;

use ruma::{CanonicalJsonObject, OwnedUserId, UserId};
use serde_json::value::RawValue;
use storage::{Tx, cross_signing, device_changes, device_changes::NewChange, device_keys, locks};

use super::{
    Keys, Wanted,
    cross_signing::{MASTER, WellFormed, row, well_formed},
    signed_json,
};
use crate::{Error, Result, accounts::User, error::Code, notify::Change};

/// Signed keys one request may carry.
const SIGNED_KEYS_MAX: usize = 1_000;

/// Signed keys by owner and by device id or public key.
pub type SignedKeys = BTreeMap<OwnedUserId, BTreeMap<String, Box<RawValue>>>;
/// Why signatures were not taken, by owner and by device id or public key.
pub type Refused = BTreeMap<OwnedUserId, BTreeMap<String, Error>>;

/// A signature that was found true, and whom its addition concerns.
struct Accepted {
    row: cross_signing::Signature,
    /// '' when the owner's master key was signed.
    device_id: String,
}

/// The signer's own keys.
struct Signer<'a> {
    user: &'a User,
    keys: Vec<cross_signing::CrossSigningKey>,
}

impl Signer<'_> {
    fn public_key(&self, usage: &str) -> Option<&str> {
        self.keys.iter().find(|key| key.usage == usage).map(|key| key.public_key.as_str())
    }
}

impl Keys {
    /// Add the caller's signatures to keys. Each is checked alone; returns those that were refused.
    ///
    /// # Errors
    /// [`Error::TooLarge`], or the database's.
    pub async fn add_signatures(&self, user: &User, signed: &SignedKeys) -> Result<Refused> {
        let count: usize = signed.values().map(BTreeMap::len).sum();
        if count > SIGNED_KEYS_MAX {
            return Err(Error::TooLarge(format!("a request may carry at most {SIGNED_KEYS_MAX} signed keys")));
        }
        let fetched = self.masters_of_strangers(user, signed).await?;
        let ids: Vec<&UserId> = signed.keys().map(|user_id| &**user_id).collect();
        let known: BTreeMap<&UserId, i64> = self.cx.numbers.users_if_known(&ids).await?.into_iter().collect();
        let nids = self.change_numbers(count).await?;

        let mut tx = self.cx.store.begin().await?;
        locks::user(&mut tx, user.nid).await?;
        let signer = Signer { user, keys: cross_signing::of_users(&mut tx, &[user.nid]).await? };
        let mut refused = Refused::new();
        let mut accepted = Vec::new();
        for (owner, keys) in signed {
            for (target, raw) in keys {
                let checked = match known.get(&**owner) {
                    Some(owner_nid) => {
                        let fetched = fetched.get(owner);
                        check(&mut tx, &signer, (owner, *owner_nid), fetched, target, raw).await
                    }
                    None => Err(Error::NotFound("the key")),
                };
                match checked {
                    Ok(signatures) => accepted.extend(signatures),
                    Err(error @ (Error::Storage(_) | Error::Internal(_))) => return Err(error),
                    Err(error) => drop(refused.entry(owner.clone()).or_default().insert(target.clone(), error)),
                }
            }
        }
        let changes = store(&mut tx, user.nid, &accepted).await?;
        let rows: Vec<_> = changes
            .iter()
            .zip(nids)
            .map(|((user_nid, device_id, viewer_nid), nid)| NewChange {
                nid,
                user_nid: *user_nid,
                device_id,
                viewer_nid: *viewer_nid,
            })
            .collect();
        device_changes::put(&mut tx, &rows).await?;
        let span = tx.commit().await?;
        // A signature on somebody else's key is news for the signer alone.
        let concerned = |viewer_nid: i64, owner_nid: i64| if viewer_nid == 0 { owner_nid } else { viewer_nid };
        let device_users =
            changes.iter().map(|(owner_nid, _, viewer_nid)| concerned(*viewer_nid, *owner_nid)).collect();
        self.cx.notify.publish(Change { device_users, ..Change::at(span) });
        Ok(refused)
    }

    /// Master keys of other servers' users of whom we keep no copy, from their servers; those that cannot be had are left out.
    async fn masters_of_strangers(
        &self,
        user: &User,
        signed: &SignedKeys,
    ) -> Result<BTreeMap<OwnedUserId, WellFormed>> {
        let strangers: Vec<&UserId> =
            signed.keys().map(|owner| &**owner).filter(|owner| !self.cx.is_local(owner)).collect();
        if strangers.is_empty() {
            return Ok(BTreeMap::new());
        }
        let known: BTreeMap<&UserId, i64> = self.cx.numbers.users_if_known(&strangers).await?.into_iter().collect();
        let nids: Vec<i64> = known.values().copied().collect();
        let keys = cross_signing::of_users(&mut self.cx.store.read().await?, &nids).await?;
        let has_master = |nid: &i64| keys.iter().any(|key| key.user_nid == *nid && key.usage == MASTER);
        let lacking = strangers.into_iter().filter(|owner| !known.get(owner).is_some_and(has_master));
        let lacking: Wanted = lacking.map(|owner| (owner.to_owned(), Vec::new())).collect();
        let mut masters = BTreeMap::new();
        if lacking.is_empty() {
            return Ok(masters);
        }
        for (owner, key) in self.query(user, &lacking, None).await?.master {
            if let Ok(key) = well_formed(&owner, MASTER, &key) {
                self.cx.numbers.user(&owner).await?;
                masters.insert(owner, key);
            }
        }
        Ok(masters)
    }
}

/// Store signatures; returns the changes to tell, each once: (owner, device, viewer).
async fn store(tx: &mut Tx, signer_nid: i64, accepted: &[Accepted]) -> Result<Vec<(i64, String, i64)>> {
    let mut changes = Vec::new();
    for signature in accepted {
        if cross_signing::sign(tx, &signature.row).await? {
            let owner_nid = signature.row.user_nid;
            let viewer_nid = if owner_nid == signer_nid { 0 } else { signer_nid };
            let change = (owner_nid, signature.device_id.clone(), viewer_nid);
            if !changes.contains(&change) {
                changes.push(change);
            }
        }
    }
    Ok(changes)
}

async fn check(
    tx: &mut Tx,
    signer: &Signer<'_>,
    (owner, owner_nid): (&UserId, i64),
    fetched: Option<&WellFormed>,
    target: &str,
    raw: &RawValue,
) -> Result<Vec<Accepted>> {
    let given: CanonicalJsonObject =
        serde_json::from_str(raw.get()).map_err(|error| Error::invalid(error.to_string()))?;
    if owner_nid != signer.user.nid {
        let keys = cross_signing::of_users(tx, &[owner_nid]).await?;
        let fetched = fetched.map(|key| row(owner_nid, key)).transpose()?;
        let mut masters = keys.into_iter().filter(|key| key.usage == MASTER).chain(fetched);
        let master = masters.find(|key| key.public_key == target).ok_or(Error::NotFound("the master key"))?;
        is_same(&given, &master.body)?;
        let by = signer.public_key("user_signing").ok_or(Error::NotFound("your user-signing key"))?;
        return Ok(vec![signed_by(signer, &given, by, by, owner_nid, target, "")?]);
    }
    if let Some(device) = device_keys::one(tx, owner_nid, target).await? {
        is_same(&given, &device.body)?;
        let by = signer.public_key("self_signing").ok_or(Error::NotFound("your self-signing key"))?;
        return Ok(vec![signed_by(signer, &given, by, by, owner_nid, target, target)?]);
    }
    let master = signer.keys.iter().find(|key| key.usage == "master" && key.public_key == target);
    let master = master.ok_or(Error::NotFound("the key"))?;
    is_same(&given, &master.body)?;
    let mut accepted = Vec::new();
    for (key_id, _) in signed_json::signatures_of(&given, owner.as_str()) {
        let Some(device_id) = key_id.strip_prefix("ed25519:").filter(|id| *id != target) else { continue };
        let Some(device) = device_keys::one(tx, owner_nid, device_id).await? else { continue };
        let public_key = ed25519_key(&device.body, key_id).ok_or_else(wrong)?;
        accepted.push(signed_by(signer, &given, device_id, &public_key, owner_nid, target, "")?);
    }
    if accepted.is_empty() { Err(wrong()) } else { Ok(accepted) }
}

/// Take the signer's signature with their key `key_name`, if it is true.
fn signed_by(
    signer: &Signer<'_>,
    given: &CanonicalJsonObject,
    key_name: &str,
    public_key: &str,
    owner_nid: i64,
    target: &str,
    device_id: &str,
) -> Result<Accepted> {
    let key_id = format!("ed25519:{key_name}");
    let signature = signed_json::signature(given, signer.user.user_id.as_str(), &key_id).ok_or_else(wrong)?;
    if !signed_json::is_signed(given, public_key, signature) {
        return Err(wrong());
    }
    let row = cross_signing::Signature {
        user_nid: owner_nid,
        target: target.to_owned(),
        signer_nid: signer.user.nid,
        key_id,
        signature: signature.to_owned(),
    };
    Ok(Accepted { row, device_id: device_id.to_owned() })
}

/// What was signed must be the key that is stored, signatures apart.
fn is_same(given: &CanonicalJsonObject, stored: &str) -> Result<()> {
    let stored: CanonicalJsonObject = serde_json::from_str(stored).map_err(Error::internal)?;
    if signed_json::signed_bytes(given)? == signed_json::signed_bytes(&stored)? {
        return Ok(());
    }
    Err(Error::InvalidParam("the signed key is not the key that was published".into()))
}

fn ed25519_key(body: &str, key_id: &str) -> Option<String> {
    let keys: serde_json::Value = serde_json::from_str(body).ok()?;
    keys.get("keys")?.get(key_id)?.as_str().map(str::to_owned)
}

fn wrong() -> Error {
    Error::Specific(Code::InvalidSignature, "the signature is missing or wrong".into())
}
