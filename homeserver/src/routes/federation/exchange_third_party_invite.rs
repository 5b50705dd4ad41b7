//! `/_matrix/federation/v1/exchange_third_party_invite/{roomId}`

use ruma::{api::federation::thirdparty::exchange_invite::v1 as exchange, events::StateEventType};
use services::Services;

use crate::routes::{
    call::{Call, Reply},
    error::ApiError,
};

/// `PUT`: whom a user of ours invited by address is a user of the asking server.
pub async fn put(services: Services, call: Call<exchange::Request>) -> Reply<exchange::Response> {
    let exchange::Request { room_id, kind, sender, state_key, content, .. } = call.request;
    if kind != StateEventType::RoomMember {
        return Err(ApiError::invalid_param("the event is no membership"));
    }
    services.joining.exchange(&call.caller.server, &room_id, &sender, &state_key, &content).await?;
    Ok(exchange::Response::new())
}
