//! `/_matrix/client/v3/knock/{roomIdOrAlias}`

use ruma::api::client::knock::knock_room::v3::{Request, Response};
use services::{Services, limits::Action};

use super::rooms::because;
use crate::routes::call::{Call, Reply};

/// `POST`: knock at a room's door.
///
/// Spec: Client-Server API, "Knocking on rooms".
pub async fn post(services: Services, call: Call<Request>) -> Reply<Response> {
    services.limits.take_for(Action::Join, &call.caller).await?;
    let Request { room_id_or_alias, reason, via, .. } = call.request;
    Ok(Response::new(services.rooms.knock(&call.caller, &room_id_or_alias, &via, because(reason)).await?))
}
