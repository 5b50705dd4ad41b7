//! `/_matrix/client/v3/rooms/{roomId}/initialSync`

use axum::{
    Json,
    response::{IntoResponse as _, Response},
};
use ruma::api::client::peeking::get_current_state::v3::Request;
use services::Services;

use crate::routes::call::{Call, Reply};

/// `GET`: a room as it is, also for those who are not in it and may read it.
///
/// Spec: Client-Server API, "Room previews".
pub async fn get(services: Services, call: Call<Request>) -> Reply<Response> {
    Ok(Json(services.rooms.as_it_is(&call.caller, &call.request.room_id).await?).into_response())
}
