//! `/_matrix/client/v3/sync`

use std::time::Duration;

use axum::{
    http::{HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use ruma::api::client::sync::sync_events::v3 as sync;
use services::{
    Services,
    sync::{Request, filter::Filter},
};

use crate::routes::{
    call::{Call, Reply, query_value},
    error::ApiError,
};

/// `GET`: what happened since the client last asked.
///
/// Spec: Client-Server API, "Syncing". `use_state_after` is MSC4222, under its stable and unstable name.
pub async fn get(services: Services, call: Call<sync::Request>) -> Reply<Response> {
    let query = call.query.as_deref();
    let filter = match query_value(query, "filter") {
        Some(text) => filter(&services, call.caller.nid, &text).await?,
        None => Filter::default(),
    };
    let is_set = |name: &str| query_value(query, name).is_some_and(|value| value == "true");
    let request = Request {
        since: call.request.since.as_deref().map(str::parse).transpose()?,
        filter,
        full_state: call.request.full_state,
        timeout: call.request.timeout.unwrap_or(Duration::ZERO),
        use_state_after: is_set("use_state_after") || is_set("org.matrix.msc4222.use_state_after"),
        is_unstable_state_after: !is_set("use_state_after"),
        set_presence: call.request.set_presence,
        user: call.caller,
    };
    let answer = services.sync.wait(&request).await?;
    let body = serde_json::to_vec(&answer).map_err(ApiError::internal)?;
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response())
}

/// A filter written out, or the id of one uploaded before.
async fn filter(services: &Services, user_nid: i64, text: &str) -> Result<Filter, ApiError> {
    let wrong = || ApiError::invalid_param("this filter cannot be read");
    if text.starts_with('{') {
        return serde_json::from_str(text).map_err(|_| wrong());
    }
    let uploaded =
        services.filters.of_user(user_nid, text).await?.ok_or_else(|| ApiError::invalid_param("no such filter"))?;
    serde_json::from_str(&uploaded).map_err(|_| wrong())
}
