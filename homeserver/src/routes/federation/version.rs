//! `/_matrix/federation/v1/version`

use ruma::api::federation::discovery::get_server_version::v1 as version;
use services::Services;

use crate::routes::call::{Call, Reply};

/// `GET`: which software this is.
pub async fn get(_: Services, _: Call<version::Request>) -> Reply<version::Response> {
    let mut server = version::Server::new();
    server.name = Some("VoiceChat".to_owned());
    server.version = Some(env!("CARGO_PKG_VERSION").to_owned());
    let mut response = version::Response::new();
    response.server = Some(server);
    Ok(response)
}
