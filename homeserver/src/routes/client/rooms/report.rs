//! `/_matrix/client/v3/rooms/{roomId}/report`, `…/report/{eventId}`

use ruma::api::client::room::{report_content::v3 as report_event, report_room::v3 as report_room};
use services::Services;

use crate::routes::call::{Call, Reply};

/// `POST`: tell the administrators about a room.
///
/// Spec: Client-Server API, "Reporting Content".
pub async fn post(services: Services, call: Call<report_room::Request>) -> Reply<report_room::Response> {
    services.reports.room(&call.caller, &call.request.room_id, &call.request.reason).await?;
    Ok(report_room::Response::new())
}

/// `POST …/{eventId}`: tell them about an event.
pub async fn post_event(services: Services, call: Call<report_event::Request>) -> Reply<report_event::Response> {
    let report_event::Request { room_id, event_id, reason, .. } = call.request;
    services.reports.event(&call.caller, &room_id, &event_id, reason.as_deref().unwrap_or_default()).await?;
    Ok(report_event::Response::new())
}
