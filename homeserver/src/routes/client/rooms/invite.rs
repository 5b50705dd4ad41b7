//! `/_matrix/client/v3/rooms/{roomId}/invite`

use ruma::api::client::membership::invite_user::v3::{InvitationRecipient, Request, Response};
use services::{Services, limits::Action};

use super::because;
use crate::routes::{
    call::{Call, Reply},
    client::account::third_party_denied,
};

/// `POST`: invite somebody into a room.
///
/// Spec: Client-Server API, "Joining rooms".
pub async fn post(services: Services, call: Call<Request>) -> Reply<Response> {
    let Call { caller, request, .. } = call;
    services.limits.take_for(Action::Join, &caller).await?;
    let InvitationRecipient::UserId(recipient) = request.recipient else { return Err(third_party_denied()) };
    services.rooms.invite(&caller, &request.room_id, &recipient.user_id, because(recipient.reason)).await?;
    Ok(Response::new())
}
