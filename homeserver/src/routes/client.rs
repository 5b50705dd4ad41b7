//! `/_matrix/client/…`: the Client-Server API.

pub mod notifications;
pub mod presence;
pub mod pushers;
pub mod pushrules;
pub mod rooms;

use super::call::Endpoints;

pub(super) fn endpoints(endpoints: Endpoints) -> Endpoints {
    let endpoints = rooms::endpoints(endpoints);
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
