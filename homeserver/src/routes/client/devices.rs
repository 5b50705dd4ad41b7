//! `/_matrix/client/v3/devices`, `…/devices/{deviceId}`

use ruma::{
    MilliSecondsSinceUnixEpoch, UInt,
    api::client::device::{
        Device as Shown, delete_device::v3 as delete_device, get_device::v3 as get_device,
        get_devices::v3 as get_devices, update_device::v3 as update_device,
    },
};
use services::{Services, devices::Device};

use crate::routes::{
    call::{Call, Reply},
    interactive::{Interactive, prove},
};

/// `GET`: all devices of the caller.
pub async fn get(services: Services, call: Call<get_devices::Request>) -> Reply<get_devices::Response> {
    let devices = services.devices.of(call.caller.nid).await?;
    Ok(get_devices::Response::new(devices.into_iter().map(shown).collect()))
}

/// `GET`: one device of the caller.
pub async fn get_one(services: Services, call: Call<get_device::Request>) -> Reply<get_device::Response> {
    let device = services.devices.one(call.caller.nid, &call.request.device_id).await?;
    Ok(get_device::Response::new(shown(device)))
}

/// `PUT`: name a device.
pub async fn put(services: Services, call: Call<update_device::Request>) -> Reply<update_device::Response> {
    let name = call.request.display_name.as_deref();
    services.devices.rename(call.caller.nid, &call.request.device_id, name).await?;
    Ok(update_device::Response::new())
}

/// `DELETE`: end a device.
pub async fn delete(
    services: Services,
    call: Call<Interactive<delete_device::Request>>,
) -> Reply<delete_device::Response> {
    let Interactive { request, auth } = call.request;
    let operation = format!("delete device {}", request.device_id);
    prove(&services, &call.caller, &operation, auth.as_ref()).await?;
    services.devices.delete(call.caller.nid, &[request.device_id]).await?;
    Ok(delete_device::Response::new())
}

fn shown(device: Device) -> Shown {
    let mut shown = Shown::new(device.device_id.into());
    shown.display_name = device.display_name;
    shown.last_seen_ip = device.last_seen_ip;
    shown.last_seen_ts =
        device.last_seen_ms.map(|ms| MilliSecondsSinceUnixEpoch(UInt::new_saturating(ms.cast_unsigned())));
    shown
}
