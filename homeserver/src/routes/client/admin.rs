//! `/_matrix/client/v3/admin/whois/{userId}`, `/_matrix/client/v1/admin/{lock,suspend}/{userId}`

use std::collections::BTreeMap;

use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedUserId, UInt,
    api::client::admin::{
        get_user_info::v3::{self as whois, ConnectionInfo, DeviceInfo, SessionInfo},
        is_user_locked::v1 as is_locked,
        is_user_suspended::v1 as is_suspended,
        lock_user::v1 as lock,
        suspend_user::v1 as suspend,
    },
};
use services::{
    Services,
    accounts::{Account, User},
    devices::Device,
    error::Error,
};

use crate::routes::{
    call::{Call, Reply},
    error::ApiError,
};

/// `GET …/whois/{userId}`: the devices of a user and where they were last seen; for the user and administrators.
pub async fn get_whois(services: Services, call: Call<whois::Request>) -> Reply<whois::Response> {
    let user_id = call.request.user_id;
    if call.caller.user_id != user_id {
        call.caller.must_be_admin()?;
    }
    let account = services.accounts.find(&user_id).await?.ok_or(Error::NotFound("user"))?;
    let devices = services.devices.of(account.user_nid).await?;
    let mut response = whois::Response::new();
    response.user_id = Some(user_id);
    response.devices = devices.into_iter().map(connection).collect::<BTreeMap<_, _>>();
    Ok(response)
}

fn connection(device: Device) -> (String, DeviceInfo) {
    let mut connection = ConnectionInfo::new();
    connection.ip = device.last_seen_ip;
    connection.last_seen =
        device.last_seen_ms.map(|ms| MilliSecondsSinceUnixEpoch(UInt::new_saturating(ms.cast_unsigned())));
    connection.user_agent = device.last_seen_agent;
    let mut session = SessionInfo::new();
    session.connections = vec![connection];
    let mut info = DeviceInfo::new();
    info.sessions = vec![session];
    (device.device_id, info)
}

/// The account to be looked at or restricted.
async fn target(services: &Services, caller: &User, user_id: &OwnedUserId) -> Result<Account, ApiError> {
    Ok(services.accounts.moderated(caller, user_id).await?)
}

/// `GET …/lock/{userId}`
pub async fn get_lock(services: Services, call: Call<is_locked::Request>) -> Reply<is_locked::Response> {
    let account = target(&services, &call.caller, &call.request.user_id).await?;
    Ok(is_locked::Response::new(account.is_locked))
}

/// `PUT …/lock/{userId}`
pub async fn put_lock(services: Services, call: Call<lock::Request>) -> Reply<lock::Response> {
    target(&services, &call.caller, &call.request.user_id).await?;
    services.accounts.set_locked(&call.request.user_id, call.request.locked).await?;
    Ok(lock::Response::new(call.request.locked))
}

/// `GET …/suspend/{userId}`
pub async fn get_suspend(services: Services, call: Call<is_suspended::Request>) -> Reply<is_suspended::Response> {
    let account = target(&services, &call.caller, &call.request.user_id).await?;
    Ok(is_suspended::Response::new(account.is_suspended))
}

/// `PUT …/suspend/{userId}`
pub async fn put_suspend(services: Services, call: Call<suspend::Request>) -> Reply<suspend::Response> {
    target(&services, &call.caller, &call.request.user_id).await?;
    services.accounts.set_suspended(&call.request.user_id, call.request.suspended).await?;
    Ok(suspend::Response::new(call.request.suspended))
}
