//! `/_matrix/client/…`: the Client-Server API.

pub mod dehydrated_device;
pub mod keys;
pub mod notifications;
pub mod presence;
pub mod pushers;
pub mod pushrules;
pub mod room_keys;
pub mod rooms;
pub mod send_to_device;
pub mod user;

use axum::routing;

use super::call::Endpoints;

pub(super) fn endpoints(endpoints: Endpoints) -> Endpoints {
    let endpoints = encryption(endpoints);
    let endpoints = account_data(endpoints);
    let endpoints = notifying(endpoints);
    rooms::endpoints(endpoints)
}

fn notifying(endpoints: Endpoints) -> Endpoints {
    endpoints
        .endpoint(presence::put)
        .endpoint(presence::get)
        .endpoint(pushers::get)
        .endpoint(pushers::post_set)
        .endpoint(notifications::get)
        .endpoint(pushrules::get)
        .endpoint(pushrules::get_global)
        .endpoint(pushrules::get_rule)
        .endpoint(pushrules::delete)
        .endpoint(pushrules::put)
        .endpoint(pushrules::get_actions)
        .endpoint(pushrules::put_actions)
        .endpoint(pushrules::get_enabled)
        .endpoint(pushrules::put_enabled)
}

fn encryption(endpoints: Endpoints) -> Endpoints {
    endpoints
        .endpoint(send_to_device::put)
        .endpoint(keys::post_upload)
        .endpoint(keys::post_query)
        .endpoint(keys::post_claim)
        .endpoint(keys::get_changes)
        .endpoint(keys::post_signatures)
        .endpoint(room_keys::post_version)
        .endpoint(room_keys::get_version)
        .endpoint(room_keys::get_one_version)
        .endpoint(room_keys::put_version)
        .endpoint(room_keys::delete_version)
        .endpoint(room_keys::put_keys)
        .endpoint(room_keys::put_room)
        .endpoint(room_keys::put_session)
        .endpoint(room_keys::get_keys)
        .endpoint(room_keys::get_room)
        .endpoint(room_keys::get_session)
        .endpoint(room_keys::delete_keys)
        .endpoint(room_keys::delete_room)
        .endpoint(room_keys::delete_session)
        .endpoint(dehydrated_device::put)
        .endpoint(dehydrated_device::get)
        .endpoint(dehydrated_device::delete)
        .endpoint(dehydrated_device::post_events)
}

fn account_data(endpoints: Endpoints) -> Endpoints {
    /// MSC3391
    const DELETE: &str = "/_matrix/client/unstable/org.matrix.msc3391/user/{user_id}/account_data/{event_type}";
    /// MSC3391
    const DELETE_IN_ROOM: &str =
        "/_matrix/client/unstable/org.matrix.msc3391/user/{user_id}/rooms/{room_id}/account_data/{event_type}";
    endpoints
        .endpoint(user::filter::post)
        .endpoint(user::filter::get)
        .endpoint(user::account_data::put)
        .endpoint(user::account_data::get)
        .plain(DELETE, routing::delete(user::account_data::delete))
        .endpoint(user::rooms::put_account_data)
        .endpoint(user::rooms::get_account_data)
        .plain(DELETE_IN_ROOM, routing::delete(user::rooms::delete_account_data))
        .endpoint(user::rooms::get_tags)
        .endpoint(user::rooms::put_tag)
        .endpoint(user::rooms::delete_tag)
}
