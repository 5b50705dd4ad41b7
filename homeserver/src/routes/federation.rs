//! `/_matrix/federation/…`: the Server-Server API.

pub mod media;
pub mod openid;

use super::call::Endpoints;

pub(super) fn endpoints(endpoints: Endpoints) -> Endpoints {
    let endpoints = media::endpoints(endpoints);
    endpoints.endpoint(openid::get)
}
