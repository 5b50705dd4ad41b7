//! `/_matrix/federation/v2/send_leave/{roomId}/{eventId}`

use ruma::{api::federation::membership::create_leave_event::v2 as send_leave, events::room::member::MembershipState};
use services::Services;

use crate::routes::call::{Call, Reply};

/// `PUT`: a user of another server leaves, or refuses an invitation.
pub async fn put(services: Services, call: Call<send_leave::Request>) -> Reply<send_leave::Response> {
    let send_leave::Request { room_id, event_id, pdu, .. } = call.request;
    let peer = call.caller.server;
    services.resident.enter(&peer, &room_id, &event_id, &pdu, MembershipState::Leave).await?;
    Ok(send_leave::Response::new())
}
