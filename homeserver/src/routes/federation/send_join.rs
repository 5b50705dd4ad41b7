//! `/_matrix/federation/v2/send_join/{roomId}/{eventId}`, and version 1 of it, which older servers ask.

use axum::{
    Json,
    response::{IntoResponse as _, Response},
};
use ruma::{api::federation::membership::create_join_event::v2 as send_join, events::room::member::MembershipState};
use services::Services;

use crate::routes::call::{Call, Reply};

/// Version 1, of Matrix before 1.18.
pub(super) const V1: &str = "/_matrix/federation/v1/send_join/{room_id}/{event_id}";

/// `PUT`: a user of another server joins; the state before the join is the answer.
pub async fn put(services: Services, call: Call<send_join::Request>) -> Reply<send_join::Response> {
    Ok(send_join::Response::new(joined(&services, call).await?))
}

/// `PUT` of version 1: the same answer, behind a status.
pub async fn put_v1(services: Services, call: Call<send_join::Request>) -> Reply<Response> {
    Ok(Json((200, joined(&services, call).await?)).into_response())
}

async fn joined(services: &Services, call: Call<send_join::Request>) -> Reply<send_join::RoomState> {
    let send_join::Request { room_id, event_id, pdu, .. } = call.request;
    let peer = call.caller.server;
    let entered = services.resident.enter(&peer, &room_id, &event_id, &pdu, MembershipState::Join).await?;
    let mut state = send_join::RoomState::new();
    state.state = entered.before.state.iter().map(|event| event.pdu.to_federation()).collect();
    state.auth_chain = entered.before.auth_chain.iter().map(|event| event.pdu.to_federation()).collect();
    state.event = Some(entered.event.to_federation());
    state.servers_in_room = Some(entered.servers.iter().map(ToString::to_string).collect());
    Ok(state)
}
