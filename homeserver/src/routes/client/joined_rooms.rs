//! `/_matrix/client/v3/joined_rooms`

use ruma::api::client::membership::joined_rooms::v3::{Request, Response};
use services::Services;

use crate::routes::call::{Call, Reply};

/// `GET`: the rooms the caller is in.
///
/// Spec: Client-Server API, "Room membership".
pub async fn get(services: Services, call: Call<Request>) -> Reply<Response> {
    Ok(Response::new(services.rooms.joined(&call.caller).await?))
}
