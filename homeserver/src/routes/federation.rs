//! `/_matrix/federation/…`: the Server-Server API.

pub mod media;
pub mod openid;
pub mod version;

use super::call::Endpoints;

pub(super) fn endpoints(endpoints: Endpoints) -> Endpoints {
    let endpoints = media::endpoints(endpoints);
    endpoints.endpoint(version::get).endpoint(openid::get)
}
