//! `/_matrix/client/…/rooms/{roomId}/…`

use crate::routes::call::Endpoints;

pub(super) fn endpoints(endpoints: Endpoints) -> Endpoints {
    endpoints
}
