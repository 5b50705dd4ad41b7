//! `/_matrix/client/v3/rooms/{roomId}/members`

use ruma::{
    api::client::membership::get_member_events::v3::{Request, Response},
    serde::Raw,
};
use services::{Services, rooms::members::Wanted};

use crate::routes::call::{Call, Reply};

/// `GET`: the member events of a room.
///
/// Spec: Client-Server API, "Getting events for a room".
pub async fn get(services: Services, call: Call<Request>) -> Reply<Response> {
    let Call { caller, request, .. } = call;
    let at = request.at.filter(|at| !at.is_empty());
    let wanted = Wanted {
        at: at.map(|at| at.parse()).transpose()?,
        membership: request.membership.map(|membership| membership.to_string()),
        not_membership: request.not_membership.map(|membership| membership.to_string()),
    };
    let members = services.rooms.members(&caller, &request.room_id, &wanted).await?;
    Ok(Response::new(members.into_iter().map(Raw::from_json).collect()))
}
