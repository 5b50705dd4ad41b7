//! Asking other servers for the keys of their users.

use futures_util::future::BoxFuture;
use ruma::{
    ServerName, UserId,
    api::federation::{
        device::get_devices,
        keys::{claim_keys, get_keys},
    },
};

use super::client::{Client, Terms, failure};
use crate::{
    Result,
    keys::{ClaimedKeys, Claims, DeviceList, ListedDevice, UsersKeys, Wanted, remote::RemoteKeys},
};

impl RemoteKeys for Client {
    fn query<'a>(&'a self, server: &'a ServerName, wanted: Wanted) -> BoxFuture<'a, Result<UsersKeys>> {
        Box::pin(async move {
            let answer = self.send(server, get_keys::v1::Request::new(wanted), Terms::BRIEF).await?;
            Ok(UsersKeys {
                devices: answer.device_keys,
                master: answer.master_keys,
                self_signing: answer.self_signing_keys,
                ..UsersKeys::default()
            })
        })
    }

    fn claim<'a>(&'a self, server: &'a ServerName, wanted: Claims) -> BoxFuture<'a, Result<ClaimedKeys>> {
        Box::pin(async move {
            let answer = self.send(server, claim_keys::v1::Request::new(wanted), Terms::BRIEF).await?;
            Ok(ClaimedKeys { keys: answer.one_time_keys, ..ClaimedKeys::default() })
        })
    }

    fn devices<'a>(&'a self, user_id: &'a UserId) -> BoxFuture<'a, Result<DeviceList>> {
        Box::pin(async move {
            let server = user_id.server_name();
            let request = get_devices::v1::Request::new(user_id.to_owned());
            let answer = self.send(server, request, Terms::BRIEF).await?;
            if answer.user_id != user_id {
                return Err(failure(server, "it gave the devices of another user"));
            }
            let devices = answer.devices.into_iter().map(|device| ListedDevice {
                device_id: device.device_id,
                keys: device.keys,
                display_name: device.device_display_name,
            });
            Ok(DeviceList {
                user_id: answer.user_id,
                stream_id: answer.stream_id.into(),
                devices: devices.collect(),
                master: answer.master_key,
                self_signing: answer.self_signing_key,
            })
        })
    }
}
