//! `/_matrix/client/v3/login`, `/_matrix/client/v1/login/get_token`

use ruma::{
    OwnedDeviceId,
    api::{
        IncomingRequest, Metadata,
        client::session::{
            get_login_token::v1 as get_login_token,
            get_login_types::v3::{
                self as types, ApplicationServiceLoginType, LoginType, PasswordLoginType, TokenLoginType,
            },
            login::v3 as login,
        },
        error::DeserializationError,
    },
    exports::http,
};
use serde::Deserialize;
use serde_json::{Map, Value};
use services::{
    Services,
    accounts::tokens::NewSession,
    error::Error,
    limits::{Action, Subject},
};

use crate::routes::{
    call::{Call, Reply},
    error::{ApiError, missing_token},
    interactive::{Interactive, prove},
};

/// The body of a login as clients of all ages write it; ruma's own reader panics on one without `type`.
#[derive(Deserialize)]
pub struct Login {
    #[serde(rename = "type")]
    kind: String,
    identifier: Option<Map<String, Value>>,
    user: Option<String>,
    password: Option<String>,
    token: Option<String>,
    device_id: Option<OwnedDeviceId>,
    initial_device_display_name: Option<String>,
    #[serde(default)]
    refresh_token: bool,
}

impl Metadata for Login {
    const METHOD: http::Method = login::Request::METHOD;
    const RATE_LIMITED: bool = login::Request::RATE_LIMITED;
    type Authentication = <login::Request as Metadata>::Authentication;
    type PathBuilder = <login::Request as Metadata>::PathBuilder;
    const PATH_BUILDER: Self::PathBuilder = login::Request::PATH_BUILDER;
}

impl IncomingRequest for Login {
    type EndpointError = <login::Request as IncomingRequest>::EndpointError;
    type OutgoingResponse = login::Response;

    fn try_from_http_request_inner(request: http::Request<&[u8]>, _: &[&str]) -> Result<Self, DeserializationError> {
        Ok(serde_json::from_slice(request.body())?)
    }
}

impl Login {
    /// The user id or localpart that wants to log in.
    fn name(&self) -> Result<&str, ApiError> {
        let unknown = || ApiError::from(Error::forbidden("only users of this server can be identified"));
        let missing = || ApiError::from(Error::MissingParam("identifier"));
        let Some(identifier) = &self.identifier else { return self.user.as_deref().ok_or_else(missing) };
        match identifier.get("type").and_then(Value::as_str) {
            Some("m.id.user") => identifier.get("user").and_then(Value::as_str).ok_or_else(missing),
            Some("m.id.thirdparty" | "m.id.phone") => Err(unknown()),
            Some(_) => Err(ApiError::unknown_kind("this kind of identifier is not known")),
            None => Err(missing()),
        }
    }
}

/// `GET`: the ways to log in.
pub async fn get(services: Services, _: Call<types::Request>) -> Reply<types::Response> {
    let mut flows = vec![LoginType::Password(PasswordLoginType::new())];
    if services.accounts.openid.is_login_token_enabled() {
        let mut token = TokenLoginType::new();
        token.get_login_token = true;
        flows.push(LoginType::Token(token));
    }
    flows.push(LoginType::ApplicationService(ApplicationServiceLoginType::new()));
    Ok(types::Response::new(flows))
}

/// `POST`: log in.
///
/// Spec: Client-Server API, "Login".
pub async fn post(services: Services, call: Call<Login>) -> Reply<login::Response> {
    let Call { request, caller, address, user_agent, .. } = call;
    if caller.as_ref().is_none_or(|caller| caller.is_rate_limited) {
        services.limits.take(Action::Login, &Subject::Address(address)).await?;
    }
    let new = NewSession {
        device_id: request.device_id.clone(),
        display_name: request.initial_device_display_name.clone(),
        can_refresh: request.refresh_token,
        address: Some(address),
        user_agent,
    };
    let accounts = &services.accounts;
    let session = match request.kind.as_str() {
        "m.login.password" => {
            let password = request.password.as_deref().ok_or(Error::MissingParam("password"))?;
            accounts.log_in_by_password(request.name()?, password, new).await?
        }
        "m.login.token" => {
            let token = request.token.as_deref().ok_or(Error::MissingParam("token"))?;
            accounts.log_in_by_token(token, new).await?
        }
        "m.login.application_service" => {
            let id = caller.and_then(|caller| caller.appservice).ok_or_else(missing_token)?;
            accounts.log_in_by_appservice(&id, request.name()?, new).await?
        }
        _ => return Err(ApiError::unknown_kind("this kind of login is not known")),
    };
    let mut response = login::Response::new(session.user_id, session.access_token, session.device_id);
    #[expect(deprecated, reason = "matrix-nio and others still read it")]
    {
        response.home_server = Some(response.user_id.server_name().to_owned());
    }
    response.refresh_token = session.refresh_token;
    response.expires_in = session.expires_in;
    Ok(response)
}

/// `POST …/get_token`: a token that logs another device in.
pub async fn post_get_token(
    services: Services,
    call: Call<Interactive<get_login_token::Request>>,
) -> Reply<get_login_token::Response> {
    if !services.accounts.openid.is_login_token_enabled() {
        return Err(ApiError::unrecognized(axum::http::StatusCode::NOT_FOUND));
    }
    services.limits.take(Action::Login, &Subject::Address(call.address)).await?;
    prove(&services, &call.caller, "get a login token", call.request.auth.as_ref()).await?;
    let (token, lifetime) = services.accounts.openid.login_token(&call.caller).await?;
    Ok(get_login_token::Response::new(lifetime, token))
}
