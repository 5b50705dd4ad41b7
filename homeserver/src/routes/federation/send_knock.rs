//! `/_matrix/federation/v1/send_knock/{roomId}/{eventId}`

use ruma::{
    api::federation::membership::{RawStrippedState, create_knock_event::v1 as send_knock},
    events::room::member::MembershipState,
};
use services::Services;

use crate::routes::call::{Call, Reply};

/// `PUT`: a user of another server knocks; what is shown outside is the answer.
pub async fn put(services: Services, call: Call<send_knock::Request>) -> Reply<send_knock::Response> {
    let send_knock::Request { room_id, event_id, pdu, .. } = call.request;
    let peer = call.caller.server;
    services.resident.enter(&peer, &room_id, &event_id, &pdu, MembershipState::Knock).await?;
    let state = services.resident.outside_state_of(&room_id).await?;
    let state = state.iter().map(|event| RawStrippedState::Pdu(event.to_federation())).collect();
    Ok(send_knock::Response::new(state))
}
