//! `/_matrix/client/…`: the Client-Server API.

pub mod presence;
pub mod rooms;
pub mod versions;

use super::call::Endpoints;

pub(super) fn endpoints(endpoints: Endpoints) -> Endpoints {
    let endpoints = endpoints.endpoint(versions::get);
    rooms::endpoints(endpoints)
    let endpoints = rooms::endpoints(endpoints);
    endpoints.endpoint(presence::put).endpoint(presence::get)
}
