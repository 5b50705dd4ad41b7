//! `/_matrix/client/v3/refresh`

use ruma::api::client::session::refresh_token::v3 as refresh;
use services::{
    Services,
    limits::{Action, Subject},
};

use crate::routes::call::{Call, Reply};

/// `POST`: a new access token for a refresh token.
///
/// Spec: Client-Server API, "Refreshing access tokens".
pub async fn post(services: Services, call: Call<refresh::Request>) -> Reply<refresh::Response> {
    services.limits.take(Action::Login, &Subject::Address(call.address)).await?;
    let (access, refresh_token, lifetime) = services.accounts.tokens.refresh(&call.request.refresh_token).await?;
    let mut response = refresh::Response::new(access);
    response.refresh_token = Some(refresh_token);
    response.expires_in_ms = Some(lifetime);
    Ok(response)
}
