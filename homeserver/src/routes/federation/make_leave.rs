//! `/_matrix/federation/v1/make_leave/{roomId}/{userId}`

use ruma::{api::federation::membership::prepare_leave_event::v1 as make_leave, events::room::member::MembershipState};
use services::Services;

use crate::routes::call::{Call, Reply};

/// `GET`: what a user of another server must sign to leave or to refuse an invitation.
pub async fn get(services: Services, call: Call<make_leave::Request>) -> Reply<make_leave::Response> {
    let make_leave::Request { room_id, user_id, .. } = call.request;
    let peer = call.caller.server;
    let template = services.resident.template(&peer, &room_id, &user_id, MembershipState::Leave, None).await?;
    Ok(make_leave::Response::new(Some(template.version), template.event))
}
