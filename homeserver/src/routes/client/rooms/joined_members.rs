//! `/_matrix/client/v3/rooms/{roomId}/joined_members`

use axum::{
    Json,
    response::{IntoResponse as _, Response},
};
use ruma::api::client::membership::joined_members::v3::Request;
use serde_json::{Map, json};
use services::Services;

use crate::routes::call::{Call, Reply};

/// `GET`: who is in a room, and what they are called there. Who has no name or avatar has null for it: clients rely on both keys.
///
/// Spec: Client-Server API, "Getting events for a room".
pub async fn get(services: Services, call: Call<Request>) -> Reply<Response> {
    let joined = services.rooms.joined_members(&call.caller, &call.request.room_id).await?;
    let joined: Map<_, _> = joined
        .into_iter()
        .map(|(user, face)| {
            (user.to_string(), json!({ "display_name": face.display_name, "avatar_url": face.avatar_url }))
        })
        .collect();
    Ok(Json(json!({ "joined": joined })).into_response())
}
