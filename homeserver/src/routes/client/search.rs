//! `/_matrix/client/v3/search`

use axum::{
    Json,
    response::{IntoResponse as _, Response},
};
use ruma::api::client::search::search_events::v3::Request;
use serde::Deserialize;
use serde_json::json;
use services::{Services, search::Criteria};

use crate::routes::{
    call::{Call, Reply},
    error::ApiError,
};

#[derive(Deserialize)]
struct Body {
    search_categories: Categories,
}

#[derive(Deserialize)]
struct Categories {
    room_events: Option<Criteria>,
}

/// `POST`: messages, room names and topics with certain words.
///
/// Spec: Client-Server API, "Server Side Search". The body is read by us: ruma's filter knows less than sync's.
pub async fn post(services: Services, call: Call<Request>) -> Reply<Response> {
    let body: Body = serde_json::from_slice(&call.body).map_err(|error| ApiError::bad_json(&error))?;
    let Some(criteria) = body.search_categories.room_events else {
        return Ok(Json(json!({ "search_categories": {} })).into_response());
    };
    let from = call.request.next_batch.as_deref().filter(|token| !token.is_empty());
    let found = services.search.search(&call.caller, &criteria, from).await?;
    Ok(Json(json!({ "search_categories": { "room_events": found } })).into_response())
}
