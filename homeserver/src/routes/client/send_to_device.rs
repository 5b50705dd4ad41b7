//! `/_matrix/client/v3/sendToDevice/{eventType}/{txnId}`

use ruma::api::client::to_device::send_event_to_device::v3 as send;
use services::Services;

use crate::routes::call::{Call, Reply};

/// `PUT`: send a message to devices.
pub async fn put(services: Services, call: Call<send::Request>) -> Reply<send::Response> {
    let send::Request { event_type, txn_id, messages, .. } = call.request;
    services.to_device.send(&call.caller, &event_type.to_string(), txn_id.as_str(), &messages).await?;
    Ok(send::Response::new())
}
