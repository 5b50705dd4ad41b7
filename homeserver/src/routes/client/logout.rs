//! `/_matrix/client/v3/logout`, `…/logout/all`

use ruma::api::client::session::{logout::v3 as logout, logout_all::v3 as logout_all};
use services::Services;

use crate::routes::call::{Call, Reply};

/// `POST`: end this device. An application service's own token has none and stays.
pub async fn post(services: Services, call: Call<logout::Request>) -> Reply<logout::Response> {
    services.devices.delete(call.caller.nid, call.caller.device_id.as_slice()).await?;
    Ok(logout::Response::new())
}

/// `POST`: end all devices.
pub async fn post_all(services: Services, call: Call<logout_all::Request>) -> Reply<logout_all::Response> {
    services.devices.delete_all(call.caller.nid, None).await?;
    Ok(logout_all::Response::new())
}
