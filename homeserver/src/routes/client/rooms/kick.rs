//! `/_matrix/client/v3/rooms/{roomId}/kick`

use ruma::api::client::membership::kick_user::v3::{Request, Response};
use services::{Services, limits::Action};

use super::because;
use crate::routes::call::{Call, Reply};

/// `POST`: make somebody leave a room.
///
/// Spec: Client-Server API, "Leaving rooms".
pub async fn post(services: Services, call: Call<Request>) -> Reply<Response> {
    let Call { caller, request, .. } = call;
    services.limits.take_for(Action::Message, &caller).await?;
    services.rooms.kick(&caller, &request.room_id, &request.user_id, because(request.reason)).await?;
    Ok(Response::new())
}
