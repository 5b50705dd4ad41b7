//! `/_matrix/federation/v1/state/{roomId}`

use ruma::api::federation::event::get_room_state::v1 as state;
use services::Services;

use crate::routes::call::{Call, Reply};

/// `GET`: the state before an event, whole.
pub async fn get(services: Services, call: Call<state::Request>) -> Reply<state::Response> {
    let state::Request { room_id, event_id, .. } = call.request;
    let found = services.resident.state(&call.caller.server, &room_id, &event_id).await?;
    let auth_chain = found.auth_chain.iter().map(|event| event.pdu.to_federation()).collect();
    Ok(state::Response::new(auth_chain, found.state.iter().map(|event| event.pdu.to_federation()).collect()))
}
