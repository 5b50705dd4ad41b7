//! `/_matrix/federation/…`: the Server-Server API.

use super::call::Endpoints;

pub(super) fn endpoints(endpoints: Endpoints) -> Endpoints {
    endpoints
}
