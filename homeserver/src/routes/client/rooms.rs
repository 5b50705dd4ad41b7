//! `/_matrix/client/…/rooms/{roomId}/…`

pub mod read_markers;
pub mod receipt;
pub mod typing;

use crate::routes::call::Endpoints;

pub(super) fn endpoints(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint(typing::put).endpoint(receipt::post).endpoint(read_markers::post)
}
