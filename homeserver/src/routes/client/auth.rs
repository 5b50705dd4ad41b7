//! `/_matrix/client/v3/auth/{authType}/fallback/web`: stages of registration as web pages, for clients that do not know them.
//!
//! When a stage is done the page tells the client that opened it, as the specification says ("Fallback").

use axum::{
    body::Bytes,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{Html, IntoResponse as _, Response},
};
use ruma::api::client::uiaa::get_uiaa_fallback_page::v3 as fallback;
use serde_json::{Map, Value};
use services::{Services, accounts::uia::Stage, error::Error};

use crate::routes::{
    call::{Call, Reply, query_value},
    error::ApiError,
    page::{escape, page},
};

const DONE: &str = "if(window.onAuthDone){window.onAuthDone()}\
    else if(window.opener&&window.opener.postMessage){window.opener.postMessage('authDone','*')}";

/// `GET`: the page of a stage.
pub async fn get(services: Services, call: Call<fallback::Request>) -> Reply<Response> {
    let stage = stage(call.request.auth_type.as_str())?;
    Ok(shown(StatusCode::OK, &form(&services, stage, &call.request.session, None)?, None))
}

/// `POST`: the form of that page.
pub async fn post(State(services): State<Services>, Path(kind): Path<String>, body: Bytes) -> Reply<Response> {
    let stage = stage(&kind)?;
    let text = std::str::from_utf8(&body).ok();
    let session = query_value(text, "session").ok_or(Error::MissingParam("session"))?;
    let mut data = Map::new();
    if let Some(token) = query_value(text, "token") {
        data.insert("token".into(), Value::from(token));
    }
    match services.accounts.uia.advance_by_page(&session, stage, &data).await {
        Ok(()) => {
            let nonce = services.accounts.uia.nonce();
            let body =
                format!("<h1>Thank you</h1><p>You may close this page.</p><script nonce=\"{nonce}\">{DONE}</script>");
            Ok(shown(StatusCode::OK, &body, Some(&nonce)))
        }
        Err(Error::Forbidden(words)) => {
            Ok(shown(StatusCode::FORBIDDEN, &form(&services, stage, &session, Some(&words))?, None))
        }
        Err(error) => Err(error.into()),
    }
}

/// The stages that have a page.
fn stage(name: &str) -> Result<Stage, ApiError> {
    let stage = Stage::named(name).filter(|stage| matches!(stage, Stage::Terms | Stage::RegistrationToken));
    stage.ok_or_else(|| ApiError::not_found("there is no page for this stage"))
}

fn form(services: &Services, stage: Stage, session: &str, error: Option<&str>) -> Result<String, ApiError> {
    let policies = &services.accounts.registration.settings().policies;
    let (title, inner) = match stage {
        Stage::Terms if policies.is_empty() => return Err(ApiError::not_found("this server has no terms")),
        Stage::Terms => {
            let link = |policy: &services::accounts::registration::Policy| {
                format!("<li><a target=\"_blank\" href=\"{}\">{}</a></li>", escape(&policy.url), escape(&policy.name))
            };
            let links: String = policies.iter().map(link).collect();
            ("Please read and accept", format!("<ul>{links}</ul><button>I accept</button>"))
        }
        _ => (
            "Registration token",
            "<p><input name=\"token\" aria-label=\"Registration token\" autofocus required maxlength=\"64\"> \
             <button>Continue</button></p>"
                .to_owned(),
        ),
    };
    let error = error.map(|words| format!("<p class=\"error\">{}</p>", escape(words))).unwrap_or_default();
    let session = escape(session);
    Ok(format!(
        "<h1>{title}</h1>{error}<form method=\"post\"><input type=\"hidden\" name=\"session\" value=\"{session}\">{inner}</form>"
    ))
}

fn shown(status: StatusCode, body: &str, nonce: Option<&str>) -> Response {
    let script = nonce.map(|nonce| format!("; script-src 'nonce-{nonce}'")).unwrap_or_default();
    let policy = format!(
        "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'{script}"
    );
    (status, [(header::CONTENT_SECURITY_POLICY, policy)], Html(page("Registration", body))).into_response()
}
