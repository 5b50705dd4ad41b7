//! `/_matrix/client/v3/user/{userId}/openid/request_token`

use ruma::{api::client::account::request_openid_token::v3 as openid, authentication::TokenType};
use services::{Services, limits::Action};

use crate::routes::call::{Call, Reply};

/// `POST`: a token that proves to a third party who the user is.
///
/// Spec: Client-Server API, "OpenID".
pub async fn post(services: Services, call: Call<openid::Request>) -> Reply<openid::Response> {
    call.caller.must_be(&call.request.user_id)?;
    services.limits.take_for(Action::Request, &call.caller).await?;
    let (token, lifetime) = services.accounts.openid.openid_token(&call.caller).await?;
    let server = call.caller.user_id.server_name().to_owned();
    Ok(openid::Response::new(token, TokenType::Bearer, server, lifetime))
}
