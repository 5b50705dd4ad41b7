//! `/_matrix/federation/v1/make_join/{roomId}/{userId}`

use ruma::{api::federation::membership::prepare_join_event::v1 as make_join, events::room::member::MembershipState};
use services::Services;

use crate::routes::call::{Call, Reply};

/// `GET`: what a user of another server must sign to join.
pub async fn get(services: Services, call: Call<make_join::Request>) -> Reply<make_join::Response> {
    let make_join::Request { room_id, user_id, ver, .. } = call.request;
    let peer = call.caller.server;
    let template = services.resident.template(&peer, &room_id, &user_id, MembershipState::Join, Some(&ver)).await?;
    let mut response = make_join::Response::new(template.event);
    response.room_version = Some(template.version);
    Ok(response)
}
