//! `/_matrix/federation/v1/make_knock/{roomId}/{userId}`

use ruma::{api::federation::membership::prepare_knock_event::v1 as make_knock, events::room::member::MembershipState};
use services::Services;

use crate::routes::call::{Call, Reply};

/// `GET`: what a user of another server must sign to knock.
pub async fn get(services: Services, call: Call<make_knock::Request>) -> Reply<make_knock::Response> {
    let make_knock::Request { room_id, user_id, ver, .. } = call.request;
    let peer = call.caller.server;
    let template = services.resident.template(&peer, &room_id, &user_id, MembershipState::Knock, Some(&ver)).await?;
    Ok(make_knock::Response::new(template.version, template.event))
}
