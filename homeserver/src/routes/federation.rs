//! `/_matrix/federation/…`: the Server-Server API.

pub mod openid;

use super::call::Endpoints;

pub(super) fn endpoints(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint(openid::get)
}
