//! `/_matrix/federation/v1/user/…`: devices and keys of our users.

use ruma::{
    UInt,
    api::federation::{
        device::get_devices::v1 as devices,
        keys::{claim_keys::v1 as claim, get_keys::v1 as query},
    },
};
use services::Services;

use crate::routes::call::{Call, Reply};

/// `GET devices/{userId}`: the devices of a user, with their keys.
pub async fn get_devices(services: Services, call: Call<devices::Request>) -> Reply<devices::Response> {
    let list = services.keys.devices_of(&call.request.user_id).await?;
    let mut response = devices::Response::new(list.user_id, UInt::new_saturating(list.stream_id));
    response.devices = list
        .devices
        .into_iter()
        .map(|device| {
            let mut shown = devices::UserDevice::new(device.device_id, device.keys);
            shown.device_display_name = device.display_name;
            shown
        })
        .collect();
    response.master_key = list.master;
    response.self_signing_key = list.self_signing;
    Ok(response)
}

/// `POST keys/query`: identity keys of devices.
pub async fn post_keys_query(services: Services, call: Call<query::Request>) -> Reply<query::Response> {
    let keys = services.keys.query_for_peer(&call.caller.server, &call.request.device_keys).await?;
    let mut response = query::Response::new(keys.devices);
    response.master_keys = keys.master;
    response.self_signing_keys = keys.self_signing;
    Ok(response)
}

/// `POST keys/claim`: one-time keys.
pub async fn post_keys_claim(services: Services, call: Call<claim::Request>) -> Reply<claim::Response> {
    let claimed = services.keys.claim_for_peer(&call.caller.server, &call.request.one_time_keys).await?;
    Ok(claim::Response::new(claimed.keys))
}
