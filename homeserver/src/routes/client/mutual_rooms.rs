//! `/_matrix/client/v1/mutual_rooms`

use axum::{
    Json,
    response::{IntoResponse as _, Response},
};
use ruma::api::client::membership::get_mutual_rooms::{unstable, v1};
use services::Services;

use crate::routes::call::{Call, Reply};

/// `GET`: rooms one shares with somebody.
///
/// Spec: Client-Server API, "Mutual rooms".
pub async fn get(services: Services, call: Call<v1::Request>) -> Reply<Response> {
    let v1::Request { user_id, from, .. } = call.request;
    Ok(Json(services.user_directory.mutual_rooms(&call.caller, &user_id, from.as_deref()).await?).into_response())
}

/// `GET`, by its name of before (MSC2666).
pub async fn get_unstable(services: Services, call: Call<unstable::Request>) -> Reply<Response> {
    let unstable::Request { user_id, from, .. } = call.request;
    Ok(Json(services.user_directory.mutual_rooms(&call.caller, &user_id, from.as_deref()).await?).into_response())
}
