//! `/_matrix/client/v3/rooms/{roomId}/aliases`

use ruma::api::client::room::aliases::v3::{Request, Response};
use services::Services;

use crate::routes::call::{Call, Reply};

/// `GET`: the names this server has for a room.
///
/// Spec: Client-Server API, "Room aliases".
pub async fn get(services: Services, call: Call<Request>) -> Reply<Response> {
    Ok(Response::new(services.directory.of_room(&call.caller, &call.request.room_id).await?))
}
