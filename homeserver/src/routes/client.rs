//! `/_matrix/client/…`: the Client-Server API.

pub mod presence;
pub mod rooms;

use super::call::Endpoints;

pub(super) fn endpoints(endpoints: Endpoints) -> Endpoints {
    let endpoints = rooms::endpoints(endpoints);
    endpoints.endpoint(presence::put).endpoint(presence::get)
}
