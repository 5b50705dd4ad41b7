//! `/_matrix/federation/v2/invite/{roomId}/{eventId}`
//!
//! Version 1 of this endpoint is for rooms of versions 1 and 2, which we do not take part in.

use ruma::api::federation::membership::{RawStrippedState, create_invite::v2 as invite};
use services::{Services, resident::Invite};

use crate::routes::{
    call::{Call, Reply},
    error::ApiError,
};

/// `PUT`: a user of ours is invited.
pub async fn put(services: Services, call: Call<invite::Request>) -> Reply<invite::Response> {
    let request = call.request;
    let raw = |event: RawStrippedState| serde_json::value::to_raw_value(&event).map_err(ApiError::internal);
    let invite = Invite {
        room_id: request.room_id,
        event_id: request.event_id,
        version: request.room_version,
        event: request.event,
        state: request.invite_room_state.into_iter().map(raw).collect::<Result<_, _>>()?,
    };
    let signed = services.resident.invite(&call.caller.server, invite).await?;
    Ok(invite::Response::new(signed))
}
