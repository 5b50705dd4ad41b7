//! `/_matrix/federation/v1/state_ids/{roomId}`

use ruma::api::federation::event::get_room_state_ids::v1 as state_ids;
use services::Services;

use crate::routes::call::{Call, Reply};

/// `GET`: the state before an event, ids alone.
pub async fn get(services: Services, call: Call<state_ids::Request>) -> Reply<state_ids::Response> {
    let state_ids::Request { room_id, event_id, .. } = call.request;
    let found = services.resident.state(&call.caller.server, &room_id, &event_id).await?;
    let auth_chain = found.auth_chain.iter().map(|event| event.pdu.event_id.clone()).collect();
    Ok(state_ids::Response::new(auth_chain, found.state.iter().map(|event| event.pdu.event_id.clone()).collect()))
}
