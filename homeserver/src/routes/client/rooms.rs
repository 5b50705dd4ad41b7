//! `/_matrix/client/…/rooms/{roomId}/…`

pub mod aliases;
pub mod ban;
pub mod context;
pub mod event;
pub mod forget;
pub mod hierarchy;
pub mod initial_sync;
pub mod invite;
pub mod join;
pub mod joined_members;
pub mod kick;
pub mod leave;
pub mod members;
pub mod messages;
pub mod read_markers;
pub mod receipt;
pub mod redact;
pub mod relations;
pub mod report;
pub mod send;
pub mod state;
pub mod threads;
pub mod timestamp_to_event;
pub mod typing;
pub mod unban;
pub mod upgrade;

use ruma::api::client::membership::joined_members as joined_members_api;
use serde_json::Value;
use services::rooms::membership::Extra;

use crate::routes::{
    call::{Endpoints, Reply},
    error::ApiError,
};

pub(super) fn endpoints(endpoints: Endpoints) -> Endpoints {
    let endpoints = endpoints
        .endpoint(event::get)
        .raw::<joined_members_api::v3::Request, _, _>(
            joined_members::get,
            "homeserver::routes::client::rooms::joined_members::get",
        )
        .endpoint(members::get)
        .endpoint(state::get)
        .endpoint(state::get_one)
        .endpoint(messages::get)
        .endpoint(state::put)
        .endpoint(send::put)
        .endpoint(redact::put)
        .endpoint(invite::post)
        .endpoint(join::post)
        .endpoint(forget::post)
        .endpoint(leave::post)
        .endpoint(kick::post)
        .endpoint(ban::post)
        .endpoint(unban::post)
        .endpoint(upgrade::post)
        .endpoint(typing::put)
        .endpoint(receipt::post)
        .endpoint(read_markers::post)
        .endpoint(context::get);
    reading(endpoints)
}

/// The content of a member event that says no more than why.
pub(super) fn because(reason: Option<String>) -> Extra {
    reason.into_iter().map(|reason| ("reason".to_owned(), Value::from(reason))).collect()
}

/// What a client wants its own member event to say: the whole body.
pub(super) fn member_content(body: &[u8]) -> Reply<Extra> {
    if body.is_empty() {
        return Ok(Extra::new());
    }
    let content: Extra = serde_json::from_slice(body).map_err(|error| ApiError::bad_json(&error))?;
    if content.contains_key("third_party_signed") {
        return Err(super::account::third_party_denied());
    }
    Ok(content)
}

/// What was said about events, and what stands around the room.
fn reading(endpoints: Endpoints) -> Endpoints {
    use ruma::api::client::{peeking, relations as of, space};
    endpoints
        .raw::<peeking::get_current_state::v3::Request, _, _>(
            initial_sync::get,
            "homeserver::routes::client::rooms::initial_sync::get",
        )
        .endpoint(aliases::get)
        .endpoint(timestamp_to_event::get)
        .raw::<of::get_relating_events::v1::Request, _, _>(
            relations::get,
            "homeserver::routes::client::rooms::relations::get",
        )
        .raw::<of::get_relating_events_with_rel_type::v1::Request, _, _>(
            relations::get_of_type,
            "homeserver::routes::client::rooms::relations::get_of_type",
        )
        .raw::<of::get_relating_events_with_rel_type_and_event_type::v1::Request, _, _>(
            relations::get_of_types,
            "homeserver::routes::client::rooms::relations::get_of_types",
        )
        .endpoint(threads::get)
        .raw::<space::get_hierarchy::v1::Request, _, _>(
            hierarchy::get,
            "homeserver::routes::client::rooms::hierarchy::get",
        )
        .endpoint(report::post)
        .endpoint(report::post_event)
}
