//! `/_matrix/client/v3/rooms/{roomId}/unban`

use ruma::api::client::membership::unban_user::v3::{Request, Response};
use services::{Services, limits::Action};

use super::because;
use crate::routes::call::{Call, Reply};

/// `POST`: take a ban back.
///
/// Spec: Client-Server API, "Banning users in a room".
pub async fn post(services: Services, call: Call<Request>) -> Reply<Response> {
    let Call { caller, request, .. } = call;
    services.limits.take_for(Action::Message, &caller).await?;
    services.rooms.unban(&caller, &request.room_id, &request.user_id, because(request.reason)).await?;
    Ok(Response::new())
}
