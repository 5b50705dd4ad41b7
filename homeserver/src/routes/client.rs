//! `/_matrix/client/…`: the Client-Server API.

pub mod rooms;

use super::call::Endpoints;

pub(super) fn endpoints(endpoints: Endpoints) -> Endpoints {
    rooms::endpoints(endpoints)
}
