//! `/_matrix/client/v3/rooms/{roomId}/send/{eventType}/{txnId}`

use ruma::api::client::message::send_message_event::v3::{Request, Response};
use services::{Services, limits::Action, rooms::Message};

use crate::routes::call::{Call, Reply};

/// `PUT`: send an event that is not state. Its type is taken as the path names it: ruma knows some by other names.
///
/// Spec: Client-Server API, "Sending events to a room".
pub async fn put(services: Services, call: Call<Request>) -> Reply<Response> {
    services.limits.take_for(Action::Message, &call.caller).await?;
    let message = Message {
        kind: call.arguments.get(1).cloned().unwrap_or_default(),
        txn_id: call.request.txn_id.to_string(),
        content: call.request.body.into_json(),
        ts_ms: call.request.timestamp.map(|ts| ts.get().into()),
    };
    Ok(Response::new(services.rooms.send(&call.caller, &call.request.room_id, message).await?))
}
