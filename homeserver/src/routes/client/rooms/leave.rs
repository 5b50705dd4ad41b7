//! `/_matrix/client/v3/rooms/{roomId}/leave`

use ruma::api::client::membership::leave_room::v3::{Request, Response};
use services::Services;

use super::because;
use crate::routes::call::{Call, Reply};

/// `POST`: leave a room, refuse an invitation, take back a knock.
///
/// Spec: Client-Server API, "Leaving rooms".
pub async fn post(services: Services, call: Call<Request>) -> Reply<Response> {
    let Call { caller, request, .. } = call;
    services.rooms.leave(&caller, &request.room_id, because(request.reason)).await?;
    Ok(Response::new())
}
