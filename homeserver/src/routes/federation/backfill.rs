//! `/_matrix/federation/v1/backfill/{roomId}`

use ruma::api::federation::backfill::get_backfill::v1 as backfill;
use services::Services;

use crate::routes::call::{Call, Reply};

/// `GET`: history backwards from some events.
pub async fn get(services: Services, call: Call<backfill::Request>) -> Reply<backfill::Response> {
    let backfill::Request { room_id, v, limit, .. } = call.request;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let events = services.resident.backfill(&call.caller.server, &room_id, &v, limit).await?;
    let events = events.iter().map(|event| event.to_federation()).collect();
    Ok(backfill::Response::new(services.resident.server_name().to_owned(), services.resident.now(), events))
}
