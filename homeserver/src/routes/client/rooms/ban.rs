//! `/_matrix/client/v3/rooms/{roomId}/ban`

use ruma::api::client::membership::ban_user::v3::{Request, Response};
use services::{Services, limits::Action};

use super::because;
use crate::routes::call::{Call, Reply};

/// `POST`: ban somebody from a room.
///
/// Spec: Client-Server API, "Banning users in a room".
pub async fn post(services: Services, call: Call<Request>) -> Reply<Response> {
    let Call { caller, request, .. } = call;
    services.limits.take_for(Action::Message, &caller).await?;
    services.rooms.ban(&caller, &request.room_id, &request.user_id, because(request.reason)).await?;
    Ok(Response::new())
}
