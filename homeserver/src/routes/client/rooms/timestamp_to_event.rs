//! `/_matrix/client/v1/rooms/{roomId}/timestamp_to_event`

use ruma::api::{
    Direction,
    client::room::get_event_by_timestamp::v1::{Request, Response},
};
use services::Services;

use crate::routes::call::{Call, Reply};

/// `GET`: the event nearest to a time.
///
/// Spec: Client-Server API, "Getting events for a room".
pub async fn get(services: Services, call: Call<Request>) -> Reply<Response> {
    let Request { room_id, ts, dir, .. } = call.request;
    let event = services.relations.nearest(&call.caller, &room_id, ts, dir == Direction::Forward).await?;
    Ok(Response::new(event.pdu.event_id.clone(), event.pdu.origin_server_ts))
}
