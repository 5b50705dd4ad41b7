//! `/_matrix/client/v3/rooms/{roomId}/join`

use ruma::{
    OwnedRoomOrAliasId,
    api::client::membership::join_room_by_id::v3::{Request, Response},
};
use services::{Services, limits::Action};

use super::member_content;
use crate::routes::call::{Call, Reply};

/// `POST`: join a room by its id.
///
/// Spec: Client-Server API, "Joining rooms".
pub async fn post(services: Services, call: Call<Request>) -> Reply<Response> {
    services.limits.take_for(Action::Join, &call.caller).await?;
    let content = member_content(&call.body)?;
    let room = OwnedRoomOrAliasId::from(call.request.room_id);
    Ok(Response::new(services.rooms.join(&call.caller, &room, &[], content).await?))
}
