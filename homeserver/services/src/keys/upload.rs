//! A device publishes its keys.
//!
//! Source: Client-Server API, `POST /keys/upload`, "One-time and fallback keys"; MSC4225 for the order.

use std::collections::{BTreeMap, BTreeSet};

use ruma::{
    DeviceId, UserId,
    encryption::{DeviceKeys, OneTimeKey},
    serde::Raw,
};
use serde_json::Value;
use storage::{Tx, device_changes, device_changes::NewChange, device_keys, locks, numbers::Family, one_time_keys};

use super::{Keys, OneTimeKeys, Supply, signed_json};
use crate::{Error, Result, accounts::User, error::Code};

/// Identity keys of a device.
pub(super) const DEVICE_KEYS_BYTES_MAX: usize = 64 << 10;
/// One one-time or fallback key.
const ONE_TIME_KEY_BYTES_MAX: usize = 4 << 10;
/// One-time keys a device may keep waiting.
const ONE_TIME_KEYS_PER_DEVICE_MAX: usize = 1_000;
/// Algorithms a device may have fallback keys of.
const FALLBACK_KEYS_MAX: usize = 16;

/// What a device publishes.
#[derive(Debug, Clone, Default)]
pub struct Upload {
    /// Its identity keys.
    pub device_keys: Option<Raw<DeviceKeys>>,
    /// Keys each of which is given out once.
    pub one_time_keys: OneTimeKeys,
    /// Keys given out when no other is left; one for each algorithm.
    pub fallback_keys: OneTimeKeys,
}

/// An [`Upload`] that was found in order, as it is stored.
pub(super) struct Checked {
    /// Identity keys, JSON without `unsigned`.
    device_keys: Option<String>,
    one_time: Vec<Key>,
    fallback: Vec<Key>,
}

struct Key {
    algorithm: String,
    key_id: String,
    body: String,
}

/// Numbers for what an upload may write, asked for before its transaction.
pub(super) struct UploadNumbers {
    change: i64,
    one_time: std::ops::Range<i64>,
}

impl Keys {
    /// Publish keys of the caller's device. Returns what the device has left to give out.
    ///
    /// The same upload again changes nothing. New one-time keys are given out after all that were there before.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::InvalidParam`], [`Error::TooLarge`], `M_INVALID_SIGNATURE` when the device's own signature is
    /// wrong; then nothing was stored.
    pub async fn upload(&self, user: &User, upload: &Upload) -> Result<Supply> {
        let device_id =
            user.device_id.as_deref().ok_or_else(|| Error::InvalidParam("the token has no device".into()))?;
        let checked = check(&user.user_id, device_id, upload)?;
        let numbers = self.upload_numbers(&checked).await?;
        let mut tx = self.cx.store.begin().await?;
        locks::user(&mut tx, user.nid).await?;
        store(&mut tx, user.nid, device_id.as_str(), &checked, numbers).await?;
        let supply = super::supply::read(&mut tx, user.nid, device_id.as_str()).await?;
        self.publish(tx.commit().await?, user.nid);
        self.supplies_changed([user.nid]);
        Ok(supply)
    }

    pub(super) async fn upload_numbers(&self, checked: &Checked) -> Result<UploadNumbers> {
        let change = self.cx.numbers.next(Family::DeviceChange).await?;
        let count = i64::try_from(checked.one_time.len()).unwrap_or(i64::MAX).max(1);
        let one_time = self.cx.numbers.next_many(Family::OneTimeKey, count).await?;
        Ok(UploadNumbers { change, one_time })
    }
}

/// Whether an upload for this device is in order.
pub(super) fn check(user_id: &UserId, device_id: &DeviceId, upload: &Upload) -> Result<Checked> {
    let device_keys =
        upload.device_keys.as_ref().map(|keys| check_device_keys(user_id, device_id, keys)).transpose()?;
    if upload.one_time_keys.len() > ONE_TIME_KEYS_PER_DEVICE_MAX || upload.fallback_keys.len() > FALLBACK_KEYS_MAX {
        return Err(Error::TooLarge("too many one-time keys".into()));
    }
    let one_time = upload.one_time_keys.iter().map(|(id, key)| check_key(id, key)).collect::<Result<Vec<_>>>()?;
    let fallback = upload.fallback_keys.iter().map(|(id, key)| check_key(id, key)).collect::<Result<Vec<_>>>()?;
    let algorithms: BTreeSet<_> = fallback.iter().map(|key| &key.algorithm).collect();
    if algorithms.len() < fallback.len() {
        return Err(Error::InvalidParam("more than one fallback key of an algorithm".into()));
    }
    Ok(Checked { device_keys, one_time, fallback })
}

/// Identity keys must name the device they are uploaded from and, if they carry its signature, carry a true one. Keys without
/// it are taken: clients do not trust them.
fn check_device_keys(user_id: &UserId, device_id: &DeviceId, raw: &Raw<DeviceKeys>) -> Result<String> {
    if raw.json().get().len() > DEVICE_KEYS_BYTES_MAX {
        return Err(Error::TooLarge(format!("device keys are larger than {DEVICE_KEYS_BYTES_MAX} bytes")));
    }
    let keys = raw.deserialize().map_err(|error| Error::invalid(error.to_string()))?;
    if keys.user_id != user_id || keys.device_id != device_id {
        return Err(Error::InvalidParam("the keys belong to another user or device".into()));
    }
    let mut object = signed_json::object(raw)?;
    let key_id = format!("ed25519:{device_id}");
    if let Some(signature) = signed_json::signature(&object, user_id.as_str(), &key_id) {
        let public_key = keys.keys.iter().find(|(id, _)| id.as_str() == key_id).map(|(_, key)| key.as_str());
        if !public_key.is_some_and(|key| signed_json::is_signed(&object, key, signature)) {
            let words = "the device's signature on its keys is wrong".to_owned();
            return Err(Error::Specific(Code::InvalidSignature, words));
        }
    }
    object.remove("unsigned");
    serde_json::to_string(&object).map_err(Error::internal)
}

fn check_key(id: &ruma::OneTimeKeyId, raw: &Raw<OneTimeKey>) -> Result<Key> {
    if raw.json().get().len() > ONE_TIME_KEY_BYTES_MAX {
        return Err(Error::TooLarge(format!("one-time key {id} is larger than {ONE_TIME_KEY_BYTES_MAX} bytes")));
    }
    raw.deserialize().map_err(|error| Error::invalid(format!("one-time key {id}: {error}")))?;
    // Written anew, so that the same key is the same text.
    let value: Value = serde_json::from_str(raw.json().get()).map_err(|error| Error::invalid(error.to_string()))?;
    let (algorithm, key_id) = id.as_str().split_once(':').ok_or_else(|| Error::invalid("a key's name has no colon"))?;
    Ok(Key { algorithm: algorithm.to_owned(), key_id: key_id.to_owned(), body: value.to_string() })
}

/// Store a checked upload. The caller holds the user's lock.
pub(super) async fn store(
    tx: &mut Tx,
    user_nid: i64,
    device_id: &str,
    checked: &Checked,
    numbers: UploadNumbers,
) -> Result<()> {
    if let Some(body) = &checked.device_keys {
        let known = device_keys::one(tx, user_nid, device_id).await?;
        if known.is_none_or(|known| known.body != *body) {
            let device_id = device_id.to_owned();
            let keys = device_keys::DeviceKeys { user_nid, device_id, body: body.clone(), display_name: None };
            device_keys::put(tx, &keys).await?;
            let change = NewChange { nid: numbers.change, user_nid, device_id: &keys.device_id, viewer_nid: 0 };
            device_changes::put(tx, &[change]).await?;
        }
    }
    if !checked.one_time.is_empty() {
        store_one_time(tx, user_nid, device_id, &checked.one_time, numbers.one_time).await?;
    }
    for key in &checked.fallback {
        let key = one_time_keys::ClaimedKey {
            user_nid,
            device_id: device_id.to_owned(),
            algorithm: key.algorithm.clone(),
            key_id: key.key_id.clone(),
            body: key.body.clone(),
        };
        one_time_keys::put_fallback(tx, &key).await?;
    }
    Ok(())
}

async fn store_one_time(
    tx: &mut Tx,
    user_nid: i64,
    device_id: &str,
    keys: &[Key],
    nids: std::ops::Range<i64>,
) -> Result<()> {
    let ids: Vec<&str> = keys.iter().map(|key| key.key_id.as_str()).collect();
    let known: BTreeMap<_, _> = one_time_keys::named(tx, user_nid, device_id, &ids)
        .await?
        .into_iter()
        .map(|known| ((known.algorithm, known.key_id), (known.body, known.is_claimed)))
        .collect();
    for key in keys {
        // Clients recognise these words and throw away the keys they hold twice.
        if let Some((body, false)) = known.get(&(key.algorithm.clone(), key.key_id.clone()))
            && *body != key.body
        {
            let words = format!("One time key {}:{} already exists. It is another key", key.algorithm, key.key_id);
            return Err(Error::InvalidParam(words));
        }
    }
    let rows: Vec<_> = keys.iter().zip(nids).map(|(k, nid)| (nid, &*k.algorithm, &*k.key_id, &*k.body)).collect();
    one_time_keys::add(tx, user_nid, device_id, &rows).await?;
    let waiting: i64 = one_time_keys::supply(tx, user_nid, device_id).await?.iter().map(|supply| supply.count).sum();
    if usize::try_from(waiting).is_ok_and(|waiting| waiting > ONE_TIME_KEYS_PER_DEVICE_MAX) {
        return Err(Error::TooLarge(format!("a device keeps at most {ONE_TIME_KEYS_PER_DEVICE_MAX} one-time keys")));
    }
    Ok(())
}
