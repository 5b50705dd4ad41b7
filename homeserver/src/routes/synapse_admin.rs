//! `/_synapse/admin/v1/register`: making accounts by a shared secret, as Synapse does, for provisioning tools and tests.

use axum::{Json, extract::State};
use serde::Deserialize;
use serde_json::{Value, json};
use services::{
    Services,
    accounts::{
        registration::{NewAccount, SharedSecretRequest},
        tokens::NewSession,
        uia::Proof,
    },
};

use super::{call::Reply, error::ApiError};

/// The path.
pub const PATH: &str = "/_synapse/admin/v1/register";

/// The body of a registration.
#[derive(Deserialize)]
pub struct Body {
    nonce: String,
    username: String,
    password: String,
    mac: String,
    #[serde(default)]
    admin: bool,
    user_type: Option<String>,
    displayname: Option<String>,
    #[serde(default)]
    inhibit_login: bool,
}

/// `GET`: a nonce.
pub async fn get(State(services): State<Services>) -> Reply<Json<Value>> {
    let nonce = services.accounts.registration.nonce().await?;
    Ok(Json(json!({ "nonce": nonce })))
}

/// `POST`: make an account.
pub async fn post(State(services): State<Services>, body: axum::body::Bytes) -> Reply<Json<Value>> {
    let body: Body = serde_json::from_slice(&body).map_err(|error| ApiError::bad_json(&error))?;
    let registration = &services.accounts.registration;
    let request = SharedSecretRequest {
        nonce: body.nonce,
        username: body.username,
        password: body.password,
        is_admin: body.admin,
        user_type: body.user_type,
        mac: body.mac,
    };
    registration.check_shared_secret(&request).await?;
    let user_id = registration.available(&request.username, None).await?;
    let new = NewAccount {
        password: Some(request.password),
        display_name: body.displayname,
        is_admin: request.is_admin,
        ..NewAccount::default()
    };
    let nid = registration.create(&user_id, new, Proof::default()).await?;
    if body.inhibit_login {
        return Ok(Json(json!({ "user_id": user_id })));
    }
    let session = services.accounts.tokens.open(nid, &user_id, NewSession::default()).await?;
    Ok(Json(json!({
        "user_id": user_id,
        "home_server": user_id.server_name(),
        "access_token": session.access_token,
        "device_id": session.device_id,
    })))
}
