//! `/_matrix/client/v3/rooms/{roomId}/receipt/{receiptType}/{eventId}`

use ruma::{
    OwnedEventId,
    api::client::receipt::create_receipt::v3::{ReceiptType, Request, Response},
    events::receipt::ReceiptThread,
};
use services::{
    Services,
    receipts::{Kind, Lane},
};

use crate::routes::{
    call::{Call, Reply},
    error::ApiError,
};

/// `POST`: the caller has read up to an event.
///
/// Spec: Client-Server API, "Receipts".
pub async fn post(services: Services, call: Call<Request>) -> Reply<Response> {
    let Call { caller, request, .. } = call;
    let kind = match request.receipt_type {
        ReceiptType::Read => Kind::Public,
        ReceiptType::ReadPrivate => Kind::Private,
        ReceiptType::FullyRead if request.thread == ReceiptThread::Unthreaded => {
            services.receipts.put_fully_read(&caller, &request.room_id, &request.event_id).await?;
            return Ok(Response::new());
        }
        ReceiptType::FullyRead => return Err(ApiError::invalid_param("thread_id has no meaning for m.fully_read")),
        _ => return Err(ApiError::invalid_param("no such receipt type")),
    };
    let lane = lane(&request.thread)?;
    services.presence.active(&caller);
    services.receipts.put(&caller, &request.room_id, kind, &lane, &request.event_id).await?;
    Ok(Response::new())
}

/// The part of the room that `thread_id` names.
fn lane(thread: &ReceiptThread) -> Result<Lane, ApiError> {
    match thread {
        ReceiptThread::Unthreaded => Ok(Lane::Room),
        ReceiptThread::Main => Ok(Lane::Main),
        ReceiptThread::Thread(root) => Ok(Lane::Thread(root.clone())),
        other => other
            .as_str()
            .and_then(|id| OwnedEventId::try_from(id).ok())
            .map(Lane::Thread)
            .ok_or_else(|| ApiError::invalid_param("thread_id is main or an event id")),
    }
}
