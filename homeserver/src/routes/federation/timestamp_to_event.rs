//! `/_matrix/federation/v1/timestamp_to_event/{roomId}`

use ruma::api::{Direction, federation::event::get_event_by_timestamp::v1 as by_time};
use services::Services;

use crate::routes::call::{Call, Reply};

/// `GET`: the event nearest to a time.
pub async fn get(services: Services, call: Call<by_time::Request>) -> Reply<by_time::Response> {
    let by_time::Request { room_id, ts, dir, .. } = call.request;
    let nearest = services.resident.by_time(&call.caller.server, &room_id, ts, dir == Direction::Forward).await?;
    Ok(by_time::Response::new(nearest.event_id, nearest.at))
}
