//! `/_matrix/federation/v1/3pid/onbind`

use ruma::api::federation::thirdparty::bind_callback::v1 as onbind;
use services::{Services, joining::third_party::BoundInvite};

use crate::routes::call::{Call, Reply};

/// `PUT onbind`: an identity server says that an address is now a user's of ours, who was invited by it.
pub async fn put_onbind(services: Services, call: Call<onbind::Request>) -> Reply<onbind::Response> {
    let onbind::Request { mxid, invites, .. } = call.request;
    let invites: Vec<BoundInvite> = invites
        .into_iter()
        .filter(|invite| invite.mxid == mxid)
        .map(|invite| BoundInvite { room_id: invite.room_id, sender: invite.sender, signed: invite.signed })
        .collect();
    services.joining.bound(&mxid, &invites).await?;
    Ok(onbind::Response::new())
}
