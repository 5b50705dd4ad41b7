//! `/_matrix/federation/v2/invite/{roomId}/{eventId}`, and version 1 of it.

use ruma::{
    RoomVersionId,
    api::federation::membership::{
        RawStrippedState,
        create_invite::{v1 as invite_v1, v2 as invite},
    },
};
use services::{
    Services,
    error::{Code, Error},
    resident::Invite,
};

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

/// `PUT` of version 1, which is for rooms of versions 1 and 2 alone: we take part in none of them.
pub async fn put_v1(_: Services, _: Call<invite_v1::Request>) -> Reply<invite_v1::Response> {
    Err(Error::Specific(Code::IncompatibleRoomVersion, RoomVersionId::V1.to_string()).into())
}
