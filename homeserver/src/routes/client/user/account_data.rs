//! `/_matrix/client/v3/user/{userId}/account_data/{type}`

use axum::{
    Json,
    extract::{Path, State},
    http::request::Parts,
};
use ruma::{
    OwnedUserId,
    api::client::config::{get_global_account_data::v3 as get, set_global_account_data::v3 as put},
    serde::Raw,
};
use serde_json::{Value, json};
use services::Services;

use crate::routes::{
    call::{self, Call, Reply},
    error::missing_token,
};

/// `GET`: the caller's account data of a type.
pub async fn get(services: Services, call: Call<get::Request>) -> Reply<get::Response> {
    let kind = call.request.event_type.to_string();
    let content = services.account_data.get(&call.caller, &call.request.user_id, None, &kind).await?;
    Ok(get::Response::new(Raw::from_json(content)))
}

/// `PUT`: set it.
pub async fn put(services: Services, call: Call<put::Request>) -> Reply<put::Response> {
    let (kind, content) = (call.request.event_type.to_string(), call.request.data.json());
    services.account_data.put(&call.caller, &call.request.user_id, None, &kind, content).await?;
    Ok(put::Response::new())
}

/// `DELETE`: delete it (MSC3391, which ruma does not describe).
pub async fn delete(
    State(services): State<Services>,
    Path((user_id, kind)): Path<(OwnedUserId, String)>,
    parts: Parts,
) -> Reply<Json<Value>> {
    let user = call::user(&services, &parts).await?.ok_or_else(missing_token)?;
    services.account_data.delete(&user, &user_id, None, &kind).await?;
    Ok(Json(json!({})))
}
