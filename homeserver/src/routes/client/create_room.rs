//! `/_matrix/client/v3/createRoom`

use ruma::{
    api::client::room::{
        Visibility,
        create_room::v3::{Request, Response, RoomPreset},
    },
    serde::Raw,
};
use serde::de::DeserializeOwned;
use services::{
    Services,
    limits::Action,
    rooms::create::{NewRoom, Preset},
};

use super::account::third_party_denied;
use crate::routes::{
    call::{Call, Reply},
    error::ApiError,
};

/// `POST`: make a room.
///
/// Spec: Client-Server API, "Creation".
pub async fn post(services: Services, call: Call<Request>) -> Reply<Response> {
    services.limits.take_for(Action::Join, &call.caller).await?;
    let new = new_room(call.request)?;
    Ok(Response::new(services.rooms.create(&call.caller, new).await?))
}

fn new_room(request: Request) -> Reply<NewRoom> {
    if !request.invite_3pid.is_empty() {
        return Err(third_party_denied());
    }
    let preset = match request.preset {
        None => None,
        Some(RoomPreset::PrivateChat) => Some(Preset::Private),
        Some(RoomPreset::TrustedPrivateChat) => Some(Preset::TrustedPrivate),
        Some(RoomPreset::PublicChat) => Some(Preset::Public),
        Some(_) => return Err(ApiError::invalid_param("this preset is not known")),
    };
    Ok(NewRoom {
        creation_content: request.creation_content.map(object).transpose()?.unwrap_or_default(),
        initial_state: request.initial_state.into_iter().map(object).collect::<Reply<_>>()?,
        invite: request.invite,
        is_direct: request.is_direct,
        name: request.name,
        topic: request.topic,
        alias: request.room_alias_name.filter(|name| !name.is_empty()),
        power_levels: request.power_level_content_override.map(object).transpose()?.unwrap_or_default(),
        preset,
        version: request.room_version,
        is_listed: request.visibility == Visibility::Public,
    })
}

/// A part of the request, read as it came: ruma would call some event types by other names.
fn object<T, O: DeserializeOwned>(raw: Raw<T>) -> Reply<O> {
    serde_json::from_str(raw.json().get()).map_err(|error| ApiError::bad_json(&error))
}
