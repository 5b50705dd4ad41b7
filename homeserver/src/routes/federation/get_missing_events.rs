//! `/_matrix/federation/v1/get_missing_events/{roomId}`

use ruma::api::federation::event::get_missing_events::v1 as missing;
use services::Services;

use crate::routes::call::{Call, Reply};

/// `POST`: the events between others.
pub async fn post(services: Services, call: Call<missing::Request>) -> Reply<missing::Response> {
    let request = call.request;
    let limit = usize::try_from(request.limit).unwrap_or(usize::MAX);
    let ends = (&*request.earliest_events, &*request.latest_events);
    let min_depth = request.min_depth.into();
    let events =
        services.resident.missing_events(&call.caller.server, &request.room_id, ends, min_depth, limit).await?;
    Ok(missing::Response::new(events.iter().map(|event| event.to_federation()).collect()))
}
