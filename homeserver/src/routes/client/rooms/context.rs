//! `/_matrix/client/v3/rooms/{roomId}/context/{eventId}`

use ruma::{
    api::client::context::get_context::v3::{Request, Response},
    serde::Raw,
};
use services::Services;

use super::messages::event_filter;
use crate::routes::call::{Call, Reply, query_value};

/// `GET`: an event with what stands around it.
///
/// Spec: Client-Server API, "Event context".
pub async fn get(services: Services, call: Call<Request>) -> Reply<Response> {
    let Call { caller, request, query, .. } = call;
    let filter = event_filter(query_value(query.as_deref(), "filter").as_deref())?;
    let limit = usize::try_from(u64::from(request.limit)).unwrap_or(usize::MAX);
    let around = services.rooms.context(&caller, &request.room_id, &request.event_id, limit, filter).await?;
    let mut response = Response::new();
    response.start = Some(around.start);
    response.end = Some(around.end);
    response.event = Some(Raw::from_json(around.event));
    response.events_before = around.before.into_iter().map(Raw::from_json).collect();
    response.events_after = around.after.into_iter().map(Raw::from_json).collect();
    response.state = around.state.into_iter().map(Raw::from_json).collect();
    Ok(response)
}
