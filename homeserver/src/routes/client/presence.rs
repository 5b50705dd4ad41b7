//! `/_matrix/client/v3/presence/{userId}/status`

use std::time::Duration;

use ruma::api::client::presence::{get_presence::v3 as get_presence, set_presence::v3 as set_presence};
use services::Services;

use crate::routes::{
    call::{Call, Reply},
    error::ApiError,
};

/// `GET`: how present somebody is. Only the caller themselves and those who share a room with them may know.
///
/// Spec: Client-Server API, "Presence".
pub async fn get(services: Services, call: Call<get_presence::Request>) -> Reply<get_presence::Response> {
    let seen = services.presence.seen_by(&call.caller, &call.request.user_id).await?;
    let mut response = get_presence::Response::new(seen.presence);
    response.status_msg = seen.status_msg;
    response.currently_active = Some(seen.currently_active);
    response.last_active_ago = seen.active_ago_ms.map(Duration::from_millis);
    Ok(response)
}

/// `PUT`: the caller says how present they are.
///
/// Spec: Client-Server API, "Presence".
pub async fn put(services: Services, call: Call<set_presence::Request>) -> Reply<set_presence::Response> {
    let Call { caller, request, .. } = call;
    if request.user_id != caller.user_id {
        return Err(ApiError::forbidden("nobody is present for another"));
    }
    services.presence.set(&caller, request.presence, request.status_msg)?;
    Ok(set_presence::Response::new())
}
