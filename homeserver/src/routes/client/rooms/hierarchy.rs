//! `/_matrix/client/v1/rooms/{roomId}/hierarchy`

use axum::{
    Json,
    response::{IntoResponse as _, Response},
};
use ruma::{UInt, api::client::space::get_hierarchy::v1::Request};
use services::{Services, spaces::Query};

use crate::routes::call::{Call, Reply};

/// `GET`: a page of the tree of rooms below a space.
///
/// Spec: Client-Server API, "Discovering rooms within spaces".
pub async fn get(services: Services, call: Call<Request>) -> Reply<Response> {
    let Request { room_id, from, limit, max_depth, suggested_only, .. } = call.request;
    let limit = limit.map(|limit: UInt| usize::try_from(u64::from(limit)).unwrap_or(usize::MAX));
    let query = Query { from, limit, max_depth: max_depth.map(Into::into), suggested_only };
    Ok(Json(services.spaces.tree(&call.caller, &room_id, &query).await?).into_response())
}
