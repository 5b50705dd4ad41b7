//! `/_matrix/client/v3/rooms/{roomId}/redact/{eventId}/{txnId}`

use ruma::api::client::redact::redact_event::v3::{Request, Response};
use services::{Services, limits::Action};

use crate::routes::call::{Call, Reply};

/// `PUT`: take the content out of an event.
///
/// Spec: Client-Server API, "Redactions".
pub async fn put(services: Services, call: Call<Request>) -> Reply<Response> {
    let Call { caller, request, .. } = call;
    services.limits.take_for(Action::Message, &caller).await?;
    let (txn_id, reason) = (request.txn_id.as_str(), request.reason.as_deref());
    let event_id = services.rooms.redact(&caller, &request.room_id, &request.event_id, txn_id, reason).await?;
    Ok(Response::new(event_id))
}
