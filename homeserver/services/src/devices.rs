//! Devices of this server's own users: their names, when they were last seen, their end.
//!
//! When a device was last seen is kept in memory and written in batches, at most once a minute for each device, so that
//! asking a question costs no write. Keys and to-device messages belong to
//! other services, and end with their device.

use std::{
    collections::HashMap,
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ruma::{DeviceId, OwnedDeviceId};
pub use storage::devices::Device;
use storage::{devices as rows, tokens as token_rows};

use crate::{
    Context, Error, Result,
    accounts::{
        User,
        tokens::{Tokens, check_device, shortened},
    },
    keys::{self, Keys},
    notify::Whisper,
    push::FORGET_PUSHERS,
};

/// How often what was seen is written, and how often for one device.
const WRITE_EVERY: Duration = Duration::from_secs(60);
/// Devices remembered as seen between two writes; the rest waits for its next request.
const SEEN_MAX: usize = 100_000;
/// Devices deleted at once.
pub const DEVICES_DELETED_MAX: usize = 1000;

/// Devices. Cheap to clone.
#[derive(Clone)]
pub struct Devices(Arc<Inner>);

struct Inner {
    cx: Context,
    tokens: Tokens,
    keys: Keys,
    seen: Mutex<HashMap<(i64, OwnedDeviceId), Seen>>,
}

/// When and how a device was last seen.
#[derive(Debug, Clone)]
struct Seen {
    at_ms: i64,
    address: IpAddr,
    agent: Option<Arc<str>>,
    is_written: bool,
}

impl fmt::Debug for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Devices").finish_non_exhaustive()
    }
}

impl Devices {
    /// On `cx`.
    #[must_use]
    pub fn start(cx: Context, tokens: Tokens, keys: Keys) -> Self {
        let devices = Self(Arc::new(Inner { cx, tokens, keys, seen: Mutex::default() }));
        let weak = Arc::downgrade(&devices.0);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(WRITE_EVERY).await;
                let Some(inner) = weak.upgrade() else { return };
                if let Err(error) = Self(inner).write_seen().await {
                    tracing::warn!(%error, "when devices were last seen cannot be written yet");
                }
            }
        });
        devices
    }

    /// Note that `user`'s device made a request. Costs no statement.
    pub fn seen(&self, user: &User, address: IpAddr, agent: Option<&str>) {
        let Some(device_id) = &user.device_id else { return };
        let at_ms = self.0.cx.clock.now_ms().cast_signed();
        let mut seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (user.nid, device_id.clone());
        let is_full = seen.len() >= SEEN_MAX;
        match seen.get_mut(&key) {
            // Nothing new within the minute: the common case must be cheap.
            Some(known) if at_ms - known.at_ms < 1000 && known.address == address => {}
            Some(known) => {
                known.at_ms = at_ms;
                known.address = address;
                known.is_written = false;
                if known.agent.as_deref() != agent {
                    known.agent = agent.map(|agent| shortened(agent).into());
                }
            }
            None if is_full => {}
            None => {
                let agent = agent.map(|agent| shortened(agent).into());
                seen.insert(key, Seen { at_ms, address, agent, is_written: false });
            }
        }
    }

    /// Write when devices were last seen, in one transaction.
    ///
    /// # Errors
    /// The database's.
    pub async fn write_seen(&self) -> Result<()> {
        let changed: Vec<Device> = {
            let mut seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
            // What did not change since the last write has gone quiet.
            seen.retain(|_, seen| !seen.is_written);
            seen.iter_mut()
                .map(|((user_nid, device_id), seen)| {
                    seen.is_written = true;
                    row(*user_nid, device_id, seen)
                })
                .collect()
        };
        if changed.is_empty() {
            return Ok(());
        }
        let mut tx = self.0.cx.store.begin().await?;
        for device in &changed {
            rows::seen(&mut tx, device).await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// All devices of a user, oldest first.
    ///
    /// # Errors
    /// The database's.
    pub async fn of(&self, user_nid: i64) -> Result<Vec<Device>> {
        let mut tx = self.0.cx.store.read().await?;
        let mut devices = rows::of_user(&mut tx, user_nid).await?;
        drop(tx);
        for device in &mut devices {
            self.overlay(device);
        }
        Ok(devices)
    }

    /// One device.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn one(&self, user_nid: i64, device_id: &DeviceId) -> Result<Device> {
        let mut tx = self.0.cx.store.read().await?;
        let device = rows::one(&mut tx, user_nid, device_id.as_str()).await?;
        drop(tx);
        let mut device = device.ok_or(Error::NotFound("device"))?;
        self.overlay(&mut device);
        Ok(device)
    }

    /// What is in memory is newer than what is written.
    fn overlay(&self, device: &mut Device) {
        let seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (device.user_nid, OwnedDeviceId::from(device.device_id.as_str()));
        if let Some(seen) = seen.get(&key).filter(|seen| device.last_seen_ms.is_none_or(|ms| ms < seen.at_ms)) {
            let newer = row(device.user_nid, &key.1, seen);
            device.last_seen_ms = newer.last_seen_ms;
            device.last_seen_ip = newer.last_seen_ip;
            device.last_seen_agent = newer.last_seen_agent;
        }
    }

    /// Name a device; `None` leaves the name as it is.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::InvalidParam`] for a name that is too long.
    pub async fn rename(&self, user_nid: i64, device_id: &DeviceId, display_name: Option<&str>) -> Result<()> {
        check_device(None, display_name)?;
        let Some(display_name) = display_name else { return self.one(user_nid, device_id).await.map(drop) };
        let mut tx = self.0.cx.store.begin().await?;
        let is_there = rows::rename(&mut tx, user_nid, device_id.as_str(), Some(display_name)).await?;
        tx.commit().await?;
        if !is_there {
            return Err(Error::NotFound("device"));
        }
        self.0.keys.device_renamed(user_nid, device_id.as_str()).await
    }

    /// End devices: they and their tokens go. Unknown ones are passed over. Returns those that were there.
    ///
    /// # Errors
    /// [`Error::InvalidParam`] for more than [`DEVICES_DELETED_MAX`].
    pub async fn delete(&self, user_nid: i64, device_ids: &[OwnedDeviceId]) -> Result<Vec<String>> {
        if device_ids.len() > DEVICES_DELETED_MAX {
            return Err(Error::InvalidParam(format!("at most {DEVICES_DELETED_MAX} devices at once")));
        }
        let device_ids: Vec<String> = device_ids.iter().map(ToString::to_string).collect();
        self.delete_named(user_nid, &device_ids).await
    }

    /// End all devices of a user but one.
    ///
    /// # Errors
    /// The database's.
    pub async fn delete_all(&self, user_nid: i64, but: Option<&DeviceId>) -> Result<Vec<String>> {
        let mut tx = self.0.cx.store.read().await?;
        let devices = rows::of_user(&mut tx, user_nid).await?;
        drop(tx);
        let others: Vec<String> = devices
            .into_iter()
            .map(|device| device.device_id)
            .filter(|id| but.is_none_or(|but| but.as_str() != id))
            .collect();
        self.delete_named(user_nid, &others).await
    }

    async fn delete_named(&self, user_nid: i64, device_ids: &[String]) -> Result<Vec<String>> {
        if device_ids.is_empty() {
            return Ok(Vec::new());
        }
        let nids = self.0.keys.change_numbers(device_ids.len()).await?;
        let mut tx = self.0.cx.store.begin().await?;
        let deleted = rows::delete(&mut tx, user_nid, device_ids).await?;
        keys::forget_devices_within(&mut tx, user_nid, &deleted, nids).await?;
        let ended = token_rows::delete_of_devices(&mut tx, user_nid, device_ids).await?;
        let gone: Vec<&str> = deleted.iter().map(String::as_str).collect();
        let pushers = storage::pushers::remove_of_devices(&mut tx, user_nid, &gone).await?;
        self.0.keys.publish(tx.commit().await?, user_nid);
        if pushers > 0 {
            self.0.cx.notify.whisper(&Whisper::Forget(FORGET_PUSHERS.to_owned(), String::new()));
        }
        self.0.forget(user_nid, &deleted);
        self.0.tokens.ended_with_devices(user_nid, device_ids, ended).await?;
        Ok(deleted)
    }
}

impl Inner {
    fn forget(&self, user_nid: i64, device_ids: &[String]) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for device_id in device_ids {
            seen.remove(&(user_nid, OwnedDeviceId::from(device_id.as_str())));
        }
    }
}

fn row(user_nid: i64, device_id: &DeviceId, seen: &Seen) -> Device {
    Device {
        user_nid,
        device_id: device_id.to_string(),
        display_name: None,
        created_ms: 0,
        last_seen_ms: Some(seen.at_ms),
        last_seen_ip: Some(seen.address.to_string()),
        last_seen_agent: seen.agent.as_deref().map(str::to_owned),
    }
}
