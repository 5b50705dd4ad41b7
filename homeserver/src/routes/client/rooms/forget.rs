//! `/_matrix/client/v3/rooms/{roomId}/forget`

use ruma::api::client::membership::forget_room::v3::{Request, Response};
use services::Services;

use crate::routes::call::{Call, Reply};

/// `POST`: not see a room any more that one has left.
///
/// Spec: Client-Server API, "Leaving rooms".
pub async fn post(services: Services, call: Call<Request>) -> Reply<Response> {
    services.rooms.forget(&call.caller, &call.request.room_id).await?;
    Ok(Response::new())
}
