//! `/_matrix/federation/v2/send_leave/{roomId}/{eventId}`, and version 1 of it, which older servers ask.

use axum::{
    Json,
    response::{IntoResponse as _, Response},
};
use ruma::{api::federation::membership::create_leave_event::v2 as send_leave, events::room::member::MembershipState};
use serde_json::json;
use services::Services;

use crate::routes::call::{Call, Reply};

/// Version 1, of Matrix before 1.18.
pub(super) const V1: &str = "/_matrix/federation/v1/send_leave/{room_id}/{event_id}";

/// `PUT`: a user of another server leaves, or refuses an invitation.
pub async fn put(services: Services, call: Call<send_leave::Request>) -> Reply<send_leave::Response> {
    left(&services, call).await?;
    Ok(send_leave::Response::new())
}

/// `PUT` of version 1: the same answer, behind a status.
pub async fn put_v1(services: Services, call: Call<send_leave::Request>) -> Reply<Response> {
    left(&services, call).await?;
    Ok(Json((200, json!({}))).into_response())
}

async fn left(services: &Services, call: Call<send_leave::Request>) -> Reply<()> {
    let send_leave::Request { room_id, event_id, pdu, .. } = call.request;
    let peer = call.caller.server;
    services.resident.enter(&peer, &room_id, &event_id, &pdu, MembershipState::Leave).await?;
    Ok(())
}
