//! `/_matrix/client/v3/rooms/{roomId}/typing/{userId}`

use ruma::api::client::typing::create_typing_event::v3::{Request, Response, Typing};
use services::Services;

use crate::routes::{
    call::{Call, Reply},
    error::ApiError,
};

/// `PUT`: the caller types, or stopped.
///
/// Spec: Client-Server API, "Typing Notifications".
pub async fn put(services: Services, call: Call<Request>) -> Reply<Response> {
    let Call { caller, request, .. } = call;
    if request.user_id != caller.user_id {
        return Err(ApiError::forbidden("nobody types for another"));
    }
    let timeout = match request.state {
        Typing::Yes(info) => Some(info.timeout),
        Typing::No => None,
    };
    services.presence.active(&caller);
    services.typing.set(&caller, &request.room_id, timeout).await?;
    Ok(Response::new())
}
