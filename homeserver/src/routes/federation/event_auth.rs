//! `/_matrix/federation/v1/event_auth/{roomId}/{eventId}`

use ruma::api::federation::authorization::get_event_authorization::v1 as event_auth;
use services::Services;

use crate::routes::call::{Call, Reply};

/// `GET`: everything that vouches for an event.
pub async fn get(services: Services, call: Call<event_auth::Request>) -> Reply<event_auth::Response> {
    let event_auth::Request { room_id, event_id, .. } = call.request;
    let chain = services.resident.event_auth(&call.caller.server, &room_id, &event_id).await?;
    Ok(event_auth::Response::new(chain.iter().map(|event| event.pdu.to_federation()).collect()))
}
