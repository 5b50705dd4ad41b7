//! `/_matrix/client/v3/rooms/{roomId}/upgrade`

use ruma::api::client::room::upgrade_room::v3::{Request, Response};
use services::{Services, limits::Action};

use crate::routes::call::{Call, Reply};

/// `POST`: replace a room by one of another version.
///
/// Spec: Client-Server API, "Room Upgrades".
pub async fn post(services: Services, call: Call<Request>) -> Reply<Response> {
    let Call { caller, request, .. } = call;
    services.limits.take_for(Action::Join, &caller).await?;
    let Request { room_id, new_version, additional_creators, .. } = request;
    Ok(Response::new(services.rooms.upgrade(&caller, &room_id, &new_version, additional_creators).await?))
}
