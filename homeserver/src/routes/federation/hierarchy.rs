//! `/_matrix/federation/v1/hierarchy/{roomId}`

use axum::{
    Json,
    response::{IntoResponse as _, Response},
};
use ruma::api::federation::space::get_hierarchy::v1::Request;
use services::Services;

use crate::routes::call::{Call, Reply};

/// `GET`: a room and the rooms just below it, as far as the asking server may know them.
///
/// Spec: Server-Server API, "Spaces".
pub async fn get(services: Services, call: Call<Request>) -> Reply<Response> {
    let Request { room_id, suggested_only, .. } = call.request;
    Ok(Json(services.spaces.for_server(&call.caller.server, &room_id, suggested_only).await?).into_response())
}
