//! `/_matrix/client/v3/capabilities`

use axum::{
    Json,
    response::{IntoResponse as _, Response},
};
use room::versions::CREATABLE;
use ruma::api::client::discovery::get_capabilities::v3 as capabilities;
use serde_json::{Map, json};
use services::Services;

use crate::routes::call::{Call, Reply};

/// `GET`: what this server lets the caller do. Written by hand, because ruma leaves out what equals its default and
/// clients look for `m.change_password`.
pub async fn get(services: Services, call: Call<capabilities::Request>) -> Reply<Response> {
    let versions: Map<_, _> = CREATABLE.iter().map(|version| (version.to_string(), json!("stable"))).collect();
    let is_login_token_enabled = services.accounts.openid.is_login_token_enabled();
    let mut capabilities = json!({
        "m.change_password": { "enabled": call.caller.appservice.is_none() && !call.caller.is_guest },
        "m.room_versions": { "default": services.rooms.settings().default_version, "available": versions },
        "m.set_displayname": { "enabled": true },
        "m.set_avatar_url": { "enabled": !call.caller.is_guest },
        "m.profile_fields": { "enabled": !call.caller.is_guest },
        "m.3pid_changes": { "enabled": false },
        "m.get_login_token": { "enabled": is_login_token_enabled },
    });
    if call.caller.is_admin {
        capabilities["m.account_moderation"] = json!({ "suspend": true, "lock": true });
    }
    Ok(Json(json!({ "capabilities": capabilities })).into_response())
}
