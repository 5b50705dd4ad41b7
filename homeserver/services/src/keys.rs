//! End-to-end encryption as far as a server sees it: public keys of devices and users, given out on request.
//!
//! * [`upload`]: a device publishes its identity keys, one-time keys and fallback keys.
//! * [`query`], [`claim`]: somebody asks for them, here or from another server.
//! * [`cross_signing`], [`signatures`]: users vouch for their devices and for each other.
//! * [`changes`]: who is told that somebody's keys changed.
//! * [`remote`]: copies of keys of other servers' users who share a room with ours.
//! * [`supply`]: what devices have left to give out.
//! * [`dehydrated`]: a device that receives while nobody is logged in (MSC3814).
//!
//! Invariants: a one-time key is given out at most once; every change of keys or devices is one row of `device_changes`;
//! a signature a user makes on somebody else's key is shown to that user alone.
//!
//! Not here: what is encrypted, key backups ([`crate::key_backup`]), messages between devices ([`crate::to_device`]).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ruma::{
    OneTimeKeyAlgorithm, OwnedDeviceId, OwnedOneTimeKeyId, OwnedUserId,
    encryption::{CrossSigningKey, DeviceKeys, OneTimeKey},
    serde::Raw,
};
use serde_json::Value;
use storage::{
    Span, Tx, cross_signing as cross_signing_keys, dehydrated_devices, device_changes, device_changes::NewChange,
    device_keys, locks, numbers::Family, one_time_keys,
};

pub use self::supply::Supply;
use crate::{Context, Result, notify::Change};

pub mod changes;
pub mod claim;
pub mod cross_signing;
pub mod dehydrated;
pub mod query;
pub mod remote;
pub mod signatures;
mod signed_json;
pub mod supply;
pub mod upload;

/// How long a one-time key that was given out is remembered, in days.
const CLAIMED_KEYS_KEPT_DAYS: i64 = 7;
/// Changes of device lists that stay in full, in positions before the newest.
const CHANGES_KEPT_POSITIONS: i64 = 1_000_000;
/// Milliseconds of a day.
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// What the operator decides about keys.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whether other servers learn what users call their devices. Default: no.
    pub tells_device_names: bool,
    /// How long to wait for other servers when a client names no time. Default: 10 s.
    pub remote_timeout: Duration,
    /// How long to wait for other servers at most. Default: 60 s.
    pub remote_timeout_max: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            tells_device_names: false,
            remote_timeout: Duration::from_secs(10),
            remote_timeout_max: Duration::from_secs(60),
        }
    }
}

/// Whose keys, of which devices; an empty list means all.
pub type Wanted = BTreeMap<OwnedUserId, Vec<OwnedDeviceId>>;
/// A one-time key of which algorithm, for which devices.
pub type Claims = BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, OneTimeKeyAlgorithm>>;
/// One-time keys by their names.
pub type OneTimeKeys = BTreeMap<OwnedOneTimeKeyId, Raw<OneTimeKey>>;
/// Servers that did not answer, with a word why.
pub type Failures = BTreeMap<String, Value>;

/// Keys of users and their devices.
#[derive(Debug, Clone, Default)]
pub struct UsersKeys {
    /// Identity keys of devices.
    pub devices: BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, Raw<DeviceKeys>>>,
    /// Master keys.
    pub master: BTreeMap<OwnedUserId, Raw<CrossSigningKey>>,
    /// Keys by which users sign their own devices.
    pub self_signing: BTreeMap<OwnedUserId, Raw<CrossSigningKey>>,
    /// Keys by which users sign other users; only ever the asking user's own.
    pub user_signing: BTreeMap<OwnedUserId, Raw<CrossSigningKey>>,
    /// Servers that did not answer.
    pub failures: Failures,
}

/// One-time keys given out.
#[derive(Debug, Clone, Default)]
pub struct ClaimedKeys {
    /// The keys.
    pub keys: BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, OneTimeKeys>>,
    /// Servers that did not answer.
    pub failures: Failures,
}

/// The devices of one user, as one server tells another.
#[derive(Debug, Clone)]
pub struct DeviceList {
    /// The user.
    pub user_id: OwnedUserId,
    /// The last change it contains.
    pub stream_id: u64,
    /// The devices that have keys.
    pub devices: Vec<ListedDevice>,
    /// The master key.
    pub master: Option<Raw<CrossSigningKey>>,
    /// The key that signs the devices.
    pub self_signing: Option<Raw<CrossSigningKey>>,
}

/// A device of a [`DeviceList`].
#[derive(Debug, Clone)]
pub struct ListedDevice {
    /// The device.
    pub device_id: OwnedDeviceId,
    /// Its keys.
    pub keys: Raw<DeviceKeys>,
    /// What its user calls it.
    pub display_name: Option<String>,
}

/// Public keys. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Keys {
    cx: Context,
    settings: Settings,
    remote: Arc<dyn remote::RemoteKeys>,
    supplies: supply::Supplies,
}

impl Keys {
    /// On `cx`; `remote` asks other servers.
    #[must_use]
    pub fn new(cx: Context, settings: Settings, remote: Arc<dyn remote::RemoteKeys>) -> Self {
        let supplies = supply::Supplies::listening(&cx);
        Self { cx, settings, remote, supplies }
    }

    /// A device's display name changed: whoever follows its user hears of it.
    ///
    /// # Errors
    /// The database's.
    pub async fn device_renamed(&self, user_nid: i64, device_id: &str) -> Result<()> {
        let nids = self.cx.numbers.next_many(Family::DeviceChange, 1).await?;
        let mut tx = self.cx.store.begin().await?;
        if device_keys::one(&mut tx, user_nid, device_id).await?.is_none() {
            return Ok(tx.rollback().await?);
        }
        let change = NewChange { nid: nids.start, user_nid, device_id, viewer_nid: 0 };
        device_changes::put(&mut tx, &[change]).await?;
        self.publish(tx.commit().await?, user_nid);
        Ok(())
    }

    /// Forget everything about devices that were removed: keys, signatures, waiting messages.
    ///
    /// # Errors
    /// The database's.
    pub async fn forget_devices(&self, user_nid: i64, devices: &[String]) -> Result<()> {
        let nids = self.change_numbers(devices.len()).await?;
        let mut tx = self.cx.store.begin().await?;
        forget_devices_within(&mut tx, user_nid, devices, nids).await?;
        self.publish(tx.commit().await?, user_nid);
        Ok(())
    }

    /// Forget all keys of a user whose account ended, those of their devices included.
    ///
    /// # Errors
    /// The database's.
    pub async fn forget_user(&self, user_nid: i64) -> Result<()> {
        let mut tx = self.cx.store.read().await?;
        let mut devices: Vec<String> =
            device_keys::of_users(&mut tx, &[user_nid]).await?.into_iter().map(|keys| keys.device_id).collect();
        devices.extend(dehydrated_devices::of_user(&mut tx, user_nid).await?.map(|(device_id, _)| device_id));
        let own = cross_signing_keys::of_users(&mut tx, &[user_nid]).await?;
        drop(tx);
        let nids = self.change_numbers(devices.len() + 1).await?;
        let mut tx = self.cx.store.begin().await?;
        locks::user(&mut tx, user_nid).await?;
        dehydrated_devices::remove(&mut tx, user_nid).await?;
        if !own.is_empty() {
            let change = NewChange { nid: nids.end - 1, user_nid, device_id: "", viewer_nid: 0 };
            device_changes::put(&mut tx, &[change]).await?;
        }
        for key in own {
            cross_signing_keys::forget_target(&mut tx, user_nid, &key.public_key).await?;
            cross_signing_keys::remove(&mut tx, user_nid, &key.usage).await?;
        }
        forget_devices_within(&mut tx, user_nid, &devices, nids.start..nids.end - 1).await?;
        self.publish(tx.commit().await?, user_nid);
        Ok(())
    }

    /// Numbers for `count` changes, for [`forget_devices_within`]; ask before the transaction begins.
    ///
    /// # Errors
    /// The database's.
    pub async fn change_numbers(&self, count: usize) -> Result<std::ops::Range<i64>> {
        let count = i64::try_from(count).unwrap_or(i64::MAX).max(1);
        Ok(self.cx.numbers.next_many(Family::DeviceChange, count).await?)
    }

    /// Delete what time has made useless. Run once an hour or so.
    ///
    /// # Errors
    /// The database's.
    pub async fn sweep(&self) -> Result<()> {
        let newest = self.cx.notify.stable();
        let mut tx = self.cx.store.begin().await?;
        one_time_keys::forget_claimed(&mut tx, self.today() - CLAIMED_KEYS_KEPT_DAYS).await?;
        device_changes::forget_superseded(&mut tx, newest - CHANGES_KEPT_POSITIONS).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Days since 1970.
    fn today(&self) -> i64 {
        i64::try_from(self.cx.clock.now_ms() / DAY_MS).unwrap_or(i64::MAX)
    }

    /// Tell what a commit changed of a user's devices or keys.
    pub fn publish(&self, span: Span, user_nid: i64) {
        self.cx.notify.publish(Change { device_users: vec![user_nid], ..Change::at(span) });
    }
}

/// [`Keys::forget_devices`] as a part of the transaction that removes the devices. `nids`: [`Keys::change_numbers`], one for
/// each device. The caller publishes the commit with the user among `device_users`.
///
/// # Errors
/// The database's.
pub async fn forget_devices_within(
    tx: &mut Tx,
    user_nid: i64,
    devices: &[String],
    nids: std::ops::Range<i64>,
) -> Result<()> {
    let had_keys = device_keys::forget(tx, user_nid, devices).await?;
    let changes: Vec<_> = had_keys
        .iter()
        .zip(nids)
        .map(|(device_id, nid)| NewChange { nid, user_nid, device_id, viewer_nid: 0 })
        .collect();
    device_changes::put(tx, &changes).await?;
    Ok(())
}
