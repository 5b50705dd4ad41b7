//! `/_matrix/client/v3/rooms/{roomId}/state`, `…/state/{eventType}/{stateKey}`
//!
//! Types are taken as the path names them: ruma knows some by other names.

use room::event::RoomIdShown;
use ruma::{
    api::client::state::{
        get_state_event_for_key::v3::{self as get_one, StateEventFormat},
        get_state_events::v3 as get_all,
        send_state_event::v3 as put,
    },
    serde::Raw,
};
use services::{Services, limits::Action, rooms::NewState};

use crate::routes::call::{Call, Reply};

/// `GET`: all state of a room.
///
/// Spec: Client-Server API, "Getting events for a room".
pub async fn get(services: Services, call: Call<get_all::Request>) -> Reply<get_all::Response> {
    let state = services.rooms.state(&call.caller, &call.request.room_id).await?;
    Ok(get_all::Response::new(state.into_iter().map(Raw::from_json).collect()))
}

/// `GET …/{eventType}/{stateKey}`: one state event, or its content alone.
pub async fn get_one(services: Services, call: Call<get_one::Request>) -> Reply<get_one::Response> {
    let [_, kind, state_key] = three(&call.arguments);
    let event = services.rooms.state_event(&call.caller, &call.request.room_id, kind, state_key).await?;
    Ok(get_one::Response::new(match call.request.format {
        StateEventFormat::Event => services.view.plain(&event, RoomIdShown::Yes)?,
        _ => event.pdu.content.clone(),
    }))
}

/// `PUT …/{eventType}/{stateKey}`: set state.
///
/// Spec: Client-Server API, "Sending events to a room".
pub async fn put(services: Services, call: Call<put::Request>) -> Reply<put::Response> {
    services.limits.take_for(Action::Message, &call.caller).await?;
    let [_, kind, state_key] = three(&call.arguments);
    let new = NewState {
        kind: kind.to_owned(),
        state_key: state_key.to_owned(),
        content: call.request.body.into_json(),
        ts_ms: call.request.timestamp.map(|ts| ts.get().into()),
    };
    let event_id = services.rooms.set_state(&call.caller, &call.request.room_id, new).await?;
    Ok(put::Response::new(event_id))
}

/// Room, type and state key; the latter may be missing.
fn three(arguments: &[String]) -> [&str; 3] {
    let at = |nth: usize| arguments.get(nth).map_or("", String::as_str);
    [at(0), at(1), at(2)]
}
