//! `/_matrix/client/v3/delete_devices`

use ruma::api::client::device::delete_devices::v3 as delete_devices;
use services::Services;

use crate::routes::{
    call::{Call, Reply},
    interactive::{Interactive, prove},
};

/// `POST`: end several devices.
pub async fn post(
    services: Services,
    call: Call<Interactive<delete_devices::Request>>,
) -> Reply<delete_devices::Response> {
    let Interactive { request, auth } = call.request;
    prove(&services, &call.caller, "delete devices", auth.as_ref()).await?;
    services.devices.delete(call.caller.nid, &request.devices).await?;
    Ok(delete_devices::Response::new())
}
