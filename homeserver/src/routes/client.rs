//! `/_matrix/client/…`: the Client-Server API.

pub mod dehydrated_device;
pub mod keys;
pub mod presence;
pub mod room_keys;
pub mod rooms;
pub mod send_to_device;
pub mod sync;
pub mod user;

use axum::routing;

use super::call::Endpoints;

pub(super) fn endpoints(endpoints: Endpoints) -> Endpoints {
    let endpoints = rooms::endpoints(endpoints);
    let endpoints = sync_and_presence(endpoints);
    let endpoints = encryption(endpoints);
    account_data(endpoints)
}

fn sync_and_presence(endpoints: Endpoints) -> Endpoints {
    endpoints
        .raw::<ruma::api::client::sync::sync_events::v3::Request, _, _>(sync::get, "routes::client::sync::get")
        .endpoint(presence::put)
        .endpoint(presence::get)
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
