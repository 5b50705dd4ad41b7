//! `/_matrix/client/v3/join/{roomIdOrAlias}`

use ruma::api::client::membership::join_room_by_id_or_alias::v3::{Request, Response};
use services::{Services, limits::Action};

use super::rooms::member_content;
use crate::routes::call::{Call, Reply};

/// `POST`: join a room by its id or an alias.
///
/// Spec: Client-Server API, "Joining rooms".
pub async fn post(services: Services, call: Call<Request>) -> Reply<Response> {
    services.limits.take_for(Action::Join, &call.caller).await?;
    let content = member_content(&call.body)?;
    let Request { room_id_or_alias, via, .. } = call.request;
    Ok(Response::new(services.rooms.join(&call.caller, &room_id_or_alias, &via, content).await?))
}
