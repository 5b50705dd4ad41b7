//! `/_matrix/client/v3/user/{userId}/rooms/{roomId}/…`: what a user keeps about a room.

use axum::{
    Json,
    extract::{Path, State},
    http::request::Parts,
};
use ruma::{
    OwnedRoomId, OwnedUserId,
    api::client::{
        config::{get_room_account_data::v3 as get, set_room_account_data::v3 as put},
        tag::{create_tag::v3 as put_tag, delete_tag::v3 as delete_tag, get_tags::v3 as get_tags},
    },
    events::tag::Tags,
    serde::Raw,
};
use serde_json::{Value, json};
use services::Services;

use crate::routes::{
    call::{self, Call, Reply},
    error::{ApiError, missing_token},
};

/// `GET …/account_data/{type}`: the caller's account data of a type for a room.
pub async fn get_account_data(services: Services, call: Call<get::Request>) -> Reply<get::Response> {
    let get::Request { user_id, room_id, event_type, .. } = call.request;
    let kind = event_type.to_string();
    let content = services.account_data.get(&call.caller, &user_id, Some(&room_id), &kind).await?;
    Ok(get::Response::new(Raw::from_json(content)))
}

/// `PUT …/account_data/{type}`: set it.
pub async fn put_account_data(services: Services, call: Call<put::Request>) -> Reply<put::Response> {
    let put::Request { user_id, room_id, event_type, data, .. } = call.request;
    let kind = event_type.to_string();
    services.account_data.put(&call.caller, &user_id, Some(&room_id), &kind, data.json()).await?;
    Ok(put::Response::new())
}

/// `DELETE …/account_data/{type}`: delete it (MSC3391, which ruma does not describe).
pub async fn delete_account_data(
    State(services): State<Services>,
    Path((user_id, room_id, kind)): Path<(OwnedUserId, OwnedRoomId, String)>,
    parts: Parts,
) -> Reply<Json<Value>> {
    let user = call::user(&services, &parts).await?.ok_or_else(missing_token)?;
    services.account_data.delete(&user, &user_id, Some(&room_id), &kind).await?;
    Ok(Json(json!({})))
}

/// `GET …/tags`: the caller's tags of a room.
pub async fn get_tags(services: Services, call: Call<get_tags::Request>) -> Reply<get_tags::Response> {
    let tags = services.account_data.tags(&call.caller, &call.request.user_id, &call.request.room_id).await?;
    // Clients may write what is no tag into `m.tag` themselves.
    let tags: Tags =
        tags.into_iter().filter_map(|(name, tag)| Some((name.into(), serde_json::from_value(tag).ok()?))).collect();
    Ok(get_tags::Response::new(tags))
}

/// `PUT …/tags/{tag}`: put a tag on a room.
pub async fn put_tag(services: Services, call: Call<put_tag::Request>) -> Reply<put_tag::Response> {
    let put_tag::Request { user_id, room_id, tag, tag_info, .. } = call.request;
    let value = serde_json::to_value(tag_info).map_err(ApiError::internal)?;
    services.account_data.set_tag(&call.caller, &user_id, &room_id, &tag, Some(value)).await?;
    Ok(put_tag::Response::new())
}

/// `DELETE …/tags/{tag}`: take a tag off.
pub async fn delete_tag(services: Services, call: Call<delete_tag::Request>) -> Reply<delete_tag::Response> {
    let delete_tag::Request { user_id, room_id, tag, .. } = call.request;
    services.account_data.set_tag(&call.caller, &user_id, &room_id, &tag, None).await?;
    Ok(delete_tag::Response::new())
}
