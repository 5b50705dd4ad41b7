//! `/_matrix/federation/v1/event/{eventId}`

use ruma::api::federation::event::get_event::v1 as event;
use services::Services;

use crate::routes::call::{Call, Reply};

/// `GET`: one event.
pub async fn get(services: Services, call: Call<event::Request>) -> Reply<event::Response> {
    let found = services.resident.event(&call.caller.server, &call.request.event_id).await?;
    Ok(event::Response::new(services.resident.server_name().to_owned(), services.resident.now(), found.to_federation()))
}
