//! `/_matrix/client/v3/rooms/{roomId}/event/{eventId}`

use ruma::{
    api::client::room::get_room_event::v3::{Request, Response},
    serde::Raw,
};
use services::Services;

use crate::routes::call::{Call, Reply};

/// `GET`: a single event.
///
/// Spec: Client-Server API, "Getting events for a room".
pub async fn get(services: Services, call: Call<Request>) -> Reply<Response> {
    let event = services.rooms.event(&call.caller, &call.request.room_id, &call.request.event_id).await?;
    Ok(Response::new(Raw::from_json(event)))
}
