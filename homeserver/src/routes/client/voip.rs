//! `/_matrix/client/v3/voip/turnServer`

use axum::{
    Json,
    response::{IntoResponse as _, Response},
};
use ruma::api::client::voip::get_turn_server_info::v3::Request;
use serde_json::json;
use services::Services;

use crate::routes::call::{Call, Reply};

/// `GET`: credentials for a TURN server; an empty object when there is none.
pub async fn get_turn_server(services: Services, call: Call<Request>) -> Reply<Response> {
    let Some(given) = services.turn.credentials(&call.caller.user_id)? else {
        return Ok(Json(json!({})).into_response());
    };
    let body = json!({
        "username": given.username,
        "password": given.password,
        "uris": given.uris,
        "ttl": given.lifetime.as_secs(),
    });
    Ok(Json(body).into_response())
}
