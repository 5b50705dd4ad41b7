//! `/_matrix/client/…/rooms/{roomId}/…`

pub mod aliases;
pub mod hierarchy;
pub mod read_markers;
pub mod receipt;
pub mod relations;
pub mod report;
pub mod threads;
pub mod timestamp_to_event;
pub mod typing;

use crate::routes::call::Endpoints;

pub(super) fn endpoints(endpoints: Endpoints) -> Endpoints {
    let endpoints = endpoints.endpoint(typing::put).endpoint(receipt::post).endpoint(read_markers::post);
    reading(endpoints)
}

/// What was said about events, and what stands around the room.
fn reading(endpoints: Endpoints) -> Endpoints {
    use ruma::api::client::{relations as of, space};
    endpoints
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
