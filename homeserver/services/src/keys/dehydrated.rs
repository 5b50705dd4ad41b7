//! A device that receives messages while its user is logged in nowhere (MSC3814). A user has at most one; it is no row of
//! `devices`, cannot log in and is listed nowhere but among keys.

use ruma::{OwnedDeviceId, encryption::DeviceKeys, serde::Raw};
use serde_json::value::RawValue;
use storage::{dehydrated_devices, device_keys, locks, to_device};

use super::{
    Keys, OneTimeKeys,
    upload::{Upload, check, store},
};
use crate::{Error, Result, accounts::User};

/// The encrypted state of a device.
const DEVICE_DATA_BYTES_MAX: usize = 256 << 10;
/// Messages in one answer.
const EVENTS_MAX: i64 = 100;

/// A device to dehydrate.
#[derive(Debug, Clone)]
pub struct Dehydration {
    /// Its id, chosen by the client.
    pub device_id: OwnedDeviceId,
    /// Its encrypted state, which we cannot read.
    pub device_data: Box<RawValue>,
    /// Its identity keys.
    pub device_keys: Raw<DeviceKeys>,
    /// Its one-time keys.
    pub one_time_keys: OneTimeKeys,
    /// Its fallback keys.
    pub fallback_keys: OneTimeKeys,
}

/// Messages for a dehydrated device.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// The events, JSON.
    pub events: Vec<Box<RawValue>>,
    /// Where to go on; `None` at the end.
    pub next_batch: Option<String>,
}

impl Keys {
    /// Store the caller's dehydrated device in place of the last one, which loses its keys and messages.
    ///
    /// # Errors
    /// Those of [`Keys::upload`]; [`Error::InvalidParam`] when the id is a logged-in device's.
    pub async fn dehydrate(&self, user: &User, device: &Dehydration) -> Result<()> {
        if device.device_data.get().len() > DEVICE_DATA_BYTES_MAX {
            return Err(Error::TooLarge(format!("a device's state has at most {DEVICE_DATA_BYTES_MAX} bytes")));
        }
        let upload = Upload {
            device_keys: Some(device.device_keys.clone()),
            one_time_keys: device.one_time_keys.clone(),
            fallback_keys: device.fallback_keys.clone(),
        };
        let checked = check(&user.user_id, &device.device_id, &upload)?;
        let numbers = self.upload_numbers(&checked).await?;
        let nids = self.change_numbers(1).await?;
        let mut tx = self.cx.store.begin().await?;
        locks::user(&mut tx, user.nid).await?;
        let last = dehydrated_devices::of_user(&mut tx, user.nid).await?.map(|(last, _)| last);
        let devices = device_keys::devices_of(&mut tx, &[user.nid]).await?;
        let is_taken = devices.iter().any(|(_, id)| device.device_id == id.as_str());
        if is_taken && last.as_deref() != Some(device.device_id.as_str()) {
            return Err(Error::InvalidParam("a device of this name is logged in".into()));
        }
        if let Some(last) = last {
            super::forget_devices_within(&mut tx, user.nid, &[last], nids).await?;
        }
        dehydrated_devices::put(&mut tx, user.nid, device.device_id.as_str(), device.device_data.get()).await?;
        store(&mut tx, user.nid, device.device_id.as_str(), &checked, numbers).await?;
        self.publish(tx.commit().await?, user.nid);
        self.supplies_changed([user.nid]);
        Ok(())
    }

    /// The caller's dehydrated device and its state.
    ///
    /// # Errors
    /// [`Error::NotFound`]
    pub async fn dehydrated(&self, user: &User) -> Result<(OwnedDeviceId, Box<RawValue>)> {
        let mut tx = self.cx.store.read().await?;
        let found = dehydrated_devices::of_user(&mut tx, user.nid).await?;
        let (device_id, body) = found.ok_or(Error::NotFound("a dehydrated device"))?;
        Ok((device_id.into(), RawValue::from_string(body).map_err(Error::internal)?))
    }

    /// Delete the caller's dehydrated device. Returns its id.
    ///
    /// # Errors
    /// [`Error::NotFound`]
    pub async fn delete_dehydrated(&self, user: &User) -> Result<OwnedDeviceId> {
        let nids = self.change_numbers(1).await?;
        let mut tx = self.cx.store.begin().await?;
        locks::user(&mut tx, user.nid).await?;
        let found = dehydrated_devices::of_user(&mut tx, user.nid).await?;
        let (device_id, _) = found.ok_or(Error::NotFound("a dehydrated device"))?;
        dehydrated_devices::remove(&mut tx, user.nid).await?;
        super::forget_devices_within(&mut tx, user.nid, std::slice::from_ref(&device_id), nids).await?;
        self.publish(tx.commit().await?, user.nid);
        Ok(device_id.into())
    }

    /// Messages for the caller's dehydrated device, after those of `next_batch`. They stay until the device is deleted.
    ///
    /// # Errors
    /// [`Error::NotFound`] when it is not the caller's dehydrated device; [`Error::InvalidParam`] for a token that is none.
    pub async fn dehydrated_events(
        &self,
        user: &User,
        device_id: &ruma::DeviceId,
        next_batch: Option<&str>,
    ) -> Result<Waiting> {
        let since = next_batch.map_or(Ok(0), str::parse::<i64>);
        let since = since.map_err(|_| Error::InvalidParam("next_batch is no token of ours".into()))?;
        let until = self.cx.notify.stable();
        let mut tx = self.cx.store.read().await?;
        let found = dehydrated_devices::of_user(&mut tx, user.nid).await?;
        if found.is_none_or(|(found, _)| found != device_id.as_str()) {
            return Err(Error::NotFound("the dehydrated device"));
        }
        let rows = to_device::read(&mut tx, user.nid, device_id.as_str(), since, until, EVENTS_MAX).await?;
        drop(tx);
        let rows: Vec<_> = rows.into_iter().filter(|(pos, _)| *pos > since).collect();
        let next_batch = rows.last().map(|(pos, _)| pos.to_string());
        let events = rows.into_iter().map(|(_, body)| RawValue::from_string(body)).collect::<Result<_, _>>();
        Ok(Waiting { events: events.map_err(Error::internal)?, next_batch })
    }
}
