//! `/_matrix/client/v1/room_summary/{roomIdOrAlias}`

use axum::{
    Json,
    response::{IntoResponse as _, Response},
};
use ruma::{
    OwnedRoomId, RoomAliasId, api::client::room::get_summary::v1::Request, events::room::member::MembershipState,
};
use serde::Serialize;
use services::{Services, spaces::Summary};

use crate::routes::{
    call::{Call, Reply},
    error::ApiError,
};

#[derive(Serialize)]
struct Answer {
    #[serde(flatten)]
    summary: Summary,
    #[serde(skip_serializing_if = "Option::is_none")]
    membership: Option<MembershipState>,
}

/// `GET`: what a room is, for those who may know of it.
///
/// Spec: Client-Server API, "Room summaries".
pub async fn get(services: Services, call: Call<Request>) -> Reply<Response> {
    let Request { room_id_or_alias: name, mut via, .. } = call.request;
    let room_id = match <&RoomAliasId>::try_from(&*name) {
        Ok(alias) => {
            let (room_id, servers) = services.directory.resolve(alias).await?;
            via.extend(servers);
            room_id
        }
        Err(_) => OwnedRoomId::try_from(name.as_str()).map_err(|error| ApiError::invalid_param(error.to_string()))?,
    };
    let (summary, membership) = services.spaces.summary(call.caller.as_ref(), &room_id, &via).await?;
    Ok(Json(Answer { summary, membership }).into_response())
}
