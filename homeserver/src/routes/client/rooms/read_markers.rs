//! `/_matrix/client/v3/rooms/{roomId}/read_markers`

use ruma::api::client::read_marker::set_read_marker::v3::{Request, Response};
use services::{
    Services,
    receipts::{Kind, Lane},
};

use crate::routes::call::{Call, Reply};

/// `POST`: move the caller's marker and receipts in one call.
///
/// Spec: Client-Server API, "Fully read markers".
pub async fn post(services: Services, call: Call<Request>) -> Reply<Response> {
    let Call { caller, request, .. } = call;
    services.presence.active(&caller);
    if let Some(event_id) = &request.fully_read {
        services.receipts.put_fully_read(&caller, &request.room_id, event_id).await?;
    }
    let receipts = [(Kind::Public, &request.read_receipt), (Kind::Private, &request.private_read_receipt)];
    for (kind, event_id) in receipts {
        if let Some(event_id) = event_id {
            services.receipts.put(&caller, &request.room_id, kind, &Lane::Room, event_id).await?;
        }
    }
    Ok(Response::new())
}
