//! `/_matrix/client/v1/rooms/{roomId}/threads`

use ruma::{
    api::client::threads::get_threads::v1::{IncludeThreads, Request, Response},
    serde::Raw,
};
use services::Services;

use crate::routes::call::{Call, Reply};

/// `GET`: a room's threads, the one written to last first.
///
/// Spec: Client-Server API, "Querying threads in a room".
pub async fn get(services: Services, call: Call<Request>) -> Reply<Response> {
    let Request { room_id, from, include, limit, .. } = call.request;
    let from = from.map(|from| from.parse()).transpose()?;
    let limit = limit.map(|limit| usize::try_from(u64::from(limit)).unwrap_or(usize::MAX));
    let only_own = include == IncludeThreads::Participated;
    let page = services.relations.threads(&call.caller, &room_id, from, limit, only_own).await?;
    let mut response = Response::new(page.chunk.into_iter().map(Raw::from_json).collect());
    response.next_batch = page.next.map(|next| next.to_string());
    Ok(response)
}
