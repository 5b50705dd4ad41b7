//! `/_matrix/client/…`: the Client-Server API.

pub mod account;
pub mod admin;
pub mod auth;
pub mod capabilities;
pub mod delete_devices;
pub mod devices;
pub mod login;
pub mod logout;
pub mod presence;
pub mod profile;
pub mod refresh;
pub mod register;
pub mod rooms;
pub mod user;

use super::{call::Endpoints, interactive::Interactive};

pub(super) fn endpoints(endpoints: Endpoints) -> Endpoints {
    let endpoints = endpoints
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
        .endpoint(admin::put_suspend);
    let endpoints = rooms::endpoints(endpoints);
    endpoints.endpoint(presence::put).endpoint(presence::get)
}
