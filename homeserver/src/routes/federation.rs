//! `/_matrix/federation/…`: the Server-Server API.

pub mod backfill;
pub mod event;
pub mod event_auth;
pub mod exchange_third_party_invite;
pub mod get_missing_events;
pub mod hierarchy;
pub mod invite;
pub mod make_join;
pub mod make_knock;
pub mod make_leave;
pub mod media;
pub mod openid;
pub mod public_rooms;
pub mod query;
pub mod send;
pub mod send_join;
pub mod send_knock;
pub mod send_leave;
pub mod state;
pub mod state_ids;
pub mod threepid;
pub mod timestamp_to_event;
pub mod user;
pub mod version;

use ruma::api::federation::{
    directory,
    membership::{create_join_event, create_leave_event},
    space,
};

use super::call::Endpoints;

pub(super) fn endpoints(endpoints: Endpoints) -> Endpoints {
    let endpoints = media::endpoints(endpoints);
    endpoints
        .endpoint(version::get)
        .endpoint(send::put)
        .endpoint(event_auth::get)
        .endpoint(backfill::get)
        .endpoint(get_missing_events::post)
        .endpoint(event::get)
        .endpoint(state::get)
        .endpoint(state_ids::get)
        .endpoint(timestamp_to_event::get)
        .endpoint(make_join::get)
        .endpoint(send_join::put)
        .raw_under::<create_join_event::v2::Request, _, _>(
            send_join::V1,
            send_join::put_v1,
            "homeserver::routes::federation::send_join::put_v1",
        )
        .endpoint(make_knock::get)
        .endpoint(send_knock::put)
        .endpoint(invite::put)
        .endpoint(invite::put_v1)
        .endpoint(make_leave::get)
        .endpoint(send_leave::put)
        .raw_under::<create_leave_event::v2::Request, _, _>(
            send_leave::V1,
            send_leave::put_v1,
            "homeserver::routes::federation::send_leave::put_v1",
        )
        .endpoint(threepid::put_onbind)
        .endpoint(exchange_third_party_invite::put)
        .endpoint(query::get_directory)
        .endpoint(query::get_profile)
        .endpoint(query::get)
        .raw::<directory::get_public_rooms::v1::Request, _, _>(
            public_rooms::get,
            "homeserver::routes::federation::public_rooms::get",
        )
        .raw::<directory::get_public_rooms_filtered::v1::Request, _, _>(
            public_rooms::post,
            "homeserver::routes::federation::public_rooms::post",
        )
        .raw::<space::get_hierarchy::v1::Request, _, _>(
            hierarchy::get,
            "homeserver::routes::federation::hierarchy::get",
        )
        .endpoint(openid::get)
        .endpoint(user::get_devices)
        .endpoint(user::post_keys_claim)
        .endpoint(user::post_keys_query)
}
