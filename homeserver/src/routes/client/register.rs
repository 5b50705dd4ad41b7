//! `/_matrix/client/v3/register…`

use axum::{
    Json,
    response::{IntoResponse as _, Response},
};
use ruma::{
    OwnedUserId,
    api::client::account::{
        check_registration_token_validity::v1 as validity,
        get_username_availability::v3 as available,
        register::{
            LoginType, RegistrationKind,
            v3::{self as register, Request},
        },
        request_registration_token_via_email::v3 as email,
        request_registration_token_via_msisdn::v3 as msisdn,
    },
};
use serde_json::json;
use services::{
    Services,
    accounts::{Masquerade, User, registration::NewAccount, tokens::NewSession, uia::Attempt},
    error::Error,
    limits::{Action, Subject},
};

use super::account::third_party_denied;
use crate::routes::{
    call::{Call, Reply},
    error::missing_token,
    interactive::{Interactive, demanded},
};

/// `POST`: make an account, for a user, a guest or by an application service.
///
/// Written by hand, because ruma gives whoever does not log in a device called null.
///
/// Spec: Client-Server API, "Account registration", "Guest access"; Application Service API, "Server admin style permissions".
pub async fn post(services: Services, call: Call<Interactive<register::Request>>) -> Reply<Response> {
    let Call { request: Interactive { request, auth }, caller, address, user_agent, .. } = call;
    let by_appservice = request.login_type == Some(LoginType::ApplicationService);
    let caller = caller.filter(|_| by_appservice);
    let from = Subject::Address(address);
    if caller.as_ref().is_none_or(|caller| caller.is_rate_limited) {
        services.limits.take(Action::Login, &from).await?;
    }
    let (user_id, nid) = if by_appservice {
        of_appservice(&services, &request, &caller.ok_or_else(missing_token)?).await?
    } else if request.kind == RegistrationKind::Guest {
        services.limits.take(Action::Registration, &from).await?;
        services.accounts.registration.create_guest().await?
    } else {
        of_user(&services, &request, auth.as_ref(), &from).await?
    };
    if request.inhibit_login && request.kind != RegistrationKind::Guest {
        return Ok(Json(json!({ "user_id": user_id })).into_response());
    }
    let new = NewSession {
        device_id: request.device_id.filter(|_| request.kind != RegistrationKind::Guest),
        display_name: request.initial_device_display_name,
        can_refresh: request.refresh_token,
        address: Some(address),
        user_agent,
    };
    let session = services.accounts.tokens.open(nid, &user_id, new).await?;
    let mut body = json!({
        "user_id": user_id,
        "home_server": user_id.server_name(),
        "access_token": session.access_token,
        "device_id": session.device_id,
    });
    if let (Some(refresh_token), Some(expires_in)) = (session.refresh_token, session.expires_in) {
        body["refresh_token"] = refresh_token.into();
        body["expires_in_ms"] = json!(u64::try_from(expires_in.as_millis()).unwrap_or(u64::MAX));
    }
    Ok(Json(body).into_response())
}

async fn of_appservice(services: &Services, request: &Request, caller: &User) -> Reply<(OwnedUserId, i64)> {
    let username = request.username.as_deref().ok_or(Error::MissingParam("username"))?;
    let registration = &services.accounts.registration;
    let user_id = registration.available(username, caller.appservice.as_deref()).await?;
    let appservice = caller.appservice.as_deref().map(str::to_owned);
    let new = NewAccount { appservice, password: request.password.clone(), ..NewAccount::default() };
    let nid = registration.create(&user_id, new, services::accounts::uia::Proof::default()).await?;
    Ok((user_id, nid))
}

async fn of_user(
    services: &Services,
    request: &Request,
    auth: Option<&Attempt>,
    from: &Subject,
) -> Reply<(OwnedUserId, i64)> {
    let registration = &services.accounts.registration;
    let demand = registration.demand()?;
    let guest = match &request.guest_access_token {
        Some(token) => Some(services.accounts.authenticate(token, &Masquerade::default()).await?),
        None => None,
    };
    // What cannot succeed is said before anybody types a token or reads the terms.
    let user_id = match (&guest, request.username.as_deref()) {
        (Some(guest), _) => guest.user_id.clone(),
        (None, Some(username)) => registration.available(username, None).await?,
        (None, None) => registration.chosen_name().await?,
    };
    if let Some(password) = &request.password {
        services.accounts.passwords.check_strength(password)?;
    }
    let proof = demanded(services, demand, auth).await?;
    let password = request.password.clone().ok_or(Error::MissingParam("password"))?;
    services.limits.take(Action::Registration, from).await?;
    let nid = if let Some(guest) = guest {
        let username = request.username.as_deref().ok_or(Error::MissingParam("username"))?;
        registration.upgrade_guest(&guest, username, &password, proof).await?;
        guest.nid
    } else {
        let new = NewAccount { password: Some(password), ..NewAccount::default() };
        registration.create(&user_id, new, proof).await?
    };
    Ok((user_id, nid))
}

/// `GET …/available`: whether a name may be had.
pub async fn get_available(services: Services, call: Call<available::Request>) -> Reply<available::Response> {
    services.limits.take(Action::Login, &Subject::Address(call.address)).await?;
    services.accounts.registration.available(&call.request.username, None).await?;
    Ok(available::Response::new(true))
}

/// `GET …/m.login.registration_token/validity`: whether an account may be made with a token.
pub async fn get_token_validity(services: Services, call: Call<validity::Request>) -> Reply<validity::Response> {
    services.limits.take(Action::Login, &Subject::Address(call.address)).await?;
    let is_valid = services.accounts.registration.is_token_valid(&call.request.token).await?;
    Ok(validity::Response::new(is_valid))
}

/// `POST …/email/requestToken`: this server sends no mail.
pub async fn post_email_token(_: Services, _: Call<email::Request>) -> Reply<email::Response> {
    Err(third_party_denied())
}

/// `POST …/msisdn/requestToken`: this server sends no messages.
pub async fn post_msisdn_token(_: Services, _: Call<msisdn::Request>) -> Reply<msisdn::Response> {
    Err(third_party_denied())
}
