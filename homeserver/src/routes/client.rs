//! `/_matrix/client/…`: the Client-Server API.

pub mod account;
pub mod admin;
pub mod appservice;
pub mod auth;
pub mod capabilities;
pub mod create_room;
pub mod dehydrated_device;
pub mod delete_devices;
pub mod devices;
pub mod directory;
pub mod events;
pub mod initial_sync;
pub mod join;
pub mod joined_rooms;
pub mod keys;
pub mod knock;
pub mod login;
pub mod logout;
pub mod media;
pub mod mutual_rooms;
pub mod notifications;
pub mod presence;
pub mod profile;
pub mod public_rooms;
pub mod pushers;
pub mod pushrules;
pub mod refresh;
pub mod register;
pub mod room_keys;
pub mod room_summary;
pub mod rooms;
pub mod search;
pub mod send_to_device;
pub mod sync;
pub mod thirdparty;
pub mod user;
pub mod user_directory;
pub mod users;
pub mod versions;
pub mod voip;

use axum::routing;

use super::{call::Endpoints, interactive::Interactive};

pub(super) fn endpoints(endpoints: Endpoints) -> Endpoints {
    let endpoints = endpoints.endpoint(create_room::post).endpoint(joined_rooms::get);
    let endpoints = endpoints.endpoint(join::post).endpoint(knock::post);
    let endpoints = rooms::endpoints(endpoints);
    let endpoints = sync_and_presence(endpoints);
    let endpoints = accounts(endpoints);
    let endpoints = encryption(endpoints);
    let endpoints = account_data(endpoints);
    let endpoints = push(endpoints);
    let endpoints = media::endpoints(endpoints);
    let endpoints = finding(endpoints);
    thirdparty::endpoints(endpoints)
        .endpoint(appservice::post_ping)
        .raw::<ruma::api::client::voip::get_turn_server_info::v3::Request, _, _>(
        voip::get_turn_server,
        "homeserver::routes::client::voip::get_turn_server",
    )
}

fn accounts(endpoints: Endpoints) -> Endpoints {
    endpoints
        .endpoint(versions::get)
        .endpoint(login::get)
        .endpoint(login::post)
        .endpoint(login::post_get_token)
        .endpoint(refresh::post)
        .endpoint(logout::post)
        .endpoint(logout::post_all)
        .raw::<Interactive<ruma::api::client::account::register::v3::Request>, _, _>(
            register::post,
            "homeserver::routes::client::register::post",
        )
        .endpoint(register::get_available)
        .endpoint(register::get_token_validity)
        .endpoint(register::post_email_token)
        .endpoint(register::post_msisdn_token)
        .raw::<ruma::api::client::uiaa::get_uiaa_fallback_page::v3::Request, _, _>(
            auth::get,
            "homeserver::routes::client::auth::get",
        )
        .plain("/_matrix/client/v3/auth/{auth_type}/fallback/web", axum::routing::post(auth::post))
        .plain("/_matrix/client/r0/auth/{auth_type}/fallback/web", axum::routing::post(auth::post))
        .endpoint(account::post_password)
        .endpoint(account::post_password_email_token)
        .endpoint(account::post_password_msisdn_token)
        .endpoint(account::post_deactivate)
        .endpoint(account::get_whoami)
        .endpoint(account::get_3pid)
        .endpoint(account::post_3pid_add)
        .endpoint(account::post_3pid_bind)
        .endpoint(account::post_3pid_delete)
        .endpoint(account::post_3pid_unbind)
        .endpoint(account::post_3pid_email_token)
        .endpoint(account::post_3pid_msisdn_token)
        .raw::<ruma::api::client::discovery::get_capabilities::v3::Request, _, _>(
            capabilities::get,
            "homeserver::routes::client::capabilities::get",
        )
        .endpoint(profile::get)
        .raw::<ruma::api::client::profile::get_profile_field::v3::Request, _, _>(
            profile::get_field,
            "homeserver::routes::client::profile::get_field",
        )
        .endpoint(profile::put_field)
        .endpoint(profile::delete_field)
        .endpoint(devices::get)
        .endpoint(devices::get_one)
        .endpoint(devices::put)
        .endpoint(devices::delete)
        .endpoint(delete_devices::post)
        .endpoint(user::openid::post)
        .endpoint(admin::get_whois)
        .endpoint(admin::get_lock)
        .endpoint(admin::put_lock)
        .endpoint(admin::get_suspend)
        .endpoint(admin::put_suspend)
}

/// Rooms, users and messages that somebody looks for.
fn finding(endpoints: Endpoints) -> Endpoints {
    use ruma::api::client::{directory as list, membership, room, search as events, user_directory as people};
    endpoints
        .endpoint(directory::get_room)
        .endpoint(directory::put_room)
        .endpoint(directory::delete_room)
        .endpoint(directory::get_list)
        .endpoint(directory::put_list)
        .endpoint(directory::put_network)
        .raw::<list::get_public_rooms::v3::Request, _, _>(
            public_rooms::get,
            "homeserver::routes::client::public_rooms::get",
        )
        .raw::<list::get_public_rooms_filtered::v3::Request, _, _>(
            public_rooms::post,
            "homeserver::routes::client::public_rooms::post",
        )
        .raw::<room::get_summary::v1::Request, _, _>(room_summary::get, "homeserver::routes::client::room_summary::get")
        .raw::<people::search_users::v3::Request, _, _>(
            user_directory::post_search,
            "homeserver::routes::client::user_directory::post_search",
        )
        .raw::<membership::get_mutual_rooms::v1::Request, _, _>(
            mutual_rooms::get,
            "homeserver::routes::client::mutual_rooms::get",
        )
        .raw::<membership::get_mutual_rooms::unstable::Request, _, _>(
            mutual_rooms::get_unstable,
            "homeserver::routes::client::mutual_rooms::get_unstable",
        )
        .raw::<events::search_events::v3::Request, _, _>(search::post, "homeserver::routes::client::search::post")
        .endpoint(users::post_report)
}

fn sync_and_presence(endpoints: Endpoints) -> Endpoints {
    endpoints
        .raw::<ruma::api::client::sync::sync_events::v3::Request, _, _>(sync::get, "routes::client::sync::get")
        .raw::<initial_sync::Request, _, _>(initial_sync::get, "homeserver::routes::client::initial_sync::get")
        .raw::<events::Request, _, _>(events::get, "homeserver::routes::client::events::get")
        .raw::<events::OneRequest, _, _>(events::get_one, "homeserver::routes::client::events::get_one")
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
        .endpoint(keys::post_device_signing)
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

fn push(endpoints: Endpoints) -> Endpoints {
    endpoints
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
