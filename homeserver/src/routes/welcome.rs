//! `/voicechat/welcome`: the page behind the link that makes the first administrator. It loads nothing from anywhere.

use axum::{
    body::Bytes,
    extract::{RawQuery, State},
    http::{HeaderName, StatusCode, header},
    response::{Html, IntoResponse, Response},
};
use services::Services;

use super::{call::query_value, error::ApiError, page::escape};

/// The path.
pub const PATH: &str = "/voicechat/welcome";

const FRAME: &str = include_str!("welcome.html");
/// The page talks to nobody but us, and nobody shows it in theirs.
const HEADERS: [(HeaderName, &str); 3] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (header::CACHE_CONTROL, "no-store"),
    (header::REFERRER_POLICY, "no-referrer"),
];

/// `GET ?token=…`: the form.
pub async fn get(State(services): State<Services>, RawQuery(query): RawQuery) -> Result<Response, ApiError> {
    let token = query_value(query.as_deref(), "token").unwrap_or_default();
    if !services.welcome.is_open(&token).await? {
        return Ok(used());
    }
    Ok(show(StatusCode::OK, &form(&services, &token, "", None)))
}

/// `POST`: the form, filled in.
pub async fn post(State(services): State<Services>, body: Bytes) -> Result<Response, ApiError> {
    let body = std::str::from_utf8(&body).unwrap_or_default();
    let field = |name| query_value(Some(body), name).unwrap_or_default();
    let (token, username, password) = (field("token"), field("username"), field("password"));
    if !services.welcome.is_open(&token).await? {
        return Ok(used());
    }
    if password != field("again") {
        let fault = "The two passwords are not the same.";
        return Ok(show(StatusCode::BAD_REQUEST, &form(&services, &token, &username, Some(fault))));
    }
    match services.welcome.make_admin(&token, username.trim(), &password).await {
        Ok(user_id) => Ok(show(StatusCode::OK, &done(&services, user_id.as_str()))),
        Err(services::Error::Specific(_, words)) => {
            Ok(show(StatusCode::BAD_REQUEST, &form(&services, &token, &username, Some(&sentence(&words)))))
        }
        Err(services::Error::Forbidden(_)) => Ok(used()),
        Err(error) => Err(error.into()),
    }
}

fn show(status: StatusCode, body: &str) -> Response {
    (status, HEADERS, Html(FRAME.replace("{{body}}", body))).into_response()
}

fn form(services: &Services, token: &str, username: &str, fault: Option<&str>) -> String {
    let server = escape(services.well_known.server_name());
    let fault =
        fault.map_or_else(String::new, |words| format!("<p class=\"fault\" role=\"alert\">{}</p>", escape(words)));
    let (token, username) = (escape(token), escape(username));
    format!(
        "<h1>Welcome to VoiceChat</h1>\
         <p>Your server <strong>{server}</strong> is running. Make the first account now; it looks after the server. \
         This page works once.</p>{fault}\
         <form method=\"post\" action=\"{PATH}\"><input type=\"hidden\" name=\"token\" value=\"{token}\">\
         <label for=\"username\">User name</label>\
         <div class=\"name\"><input id=\"username\" name=\"username\" value=\"{username}\" required autofocus \
         autocapitalize=\"none\" spellcheck=\"false\" autocomplete=\"username\" placeholder=\"alice\"><span>:{server}</span></div>\
         <label for=\"password\">Password</label>\
         <input id=\"password\" name=\"password\" type=\"password\" required autocomplete=\"new-password\">\
         <p class=\"hint\">Long beats complicated: four or five words are good.</p>\
         <label for=\"again\">The same password again</label>\
         <input id=\"again\" name=\"again\" type=\"password\" required autocomplete=\"new-password\">\
         <button>Make the account</button></form>"
    )
}

fn done(services: &Services, user_id: &str) -> String {
    let (user_id, url) = (escape(user_id), escape(&services.well_known.settings().client_url));
    format!(
        "<h1>You are in charge</h1><p><strong>{user_id}</strong> is the administrator of this server.</p>\
         <ol><li>Open a Matrix client, Element for one, choose another homeserver and give it <code>{url}</code>.</li>\
         <li>Sign in with the name and password you just chose.</li>\
         <li>Make accounts for others with <code>voicechat admin create-user NAME</code> on the server.</li>\
         <li>Talk in this browser: sign in to the <a href=\"/voice/check\">voice rooms</a>, make one and send its link.</li></ol>"
    )
}

fn used() -> Response {
    let body = "<h1>This link does not work any more</h1>\
         <p>It works once, for the first administrator, and it has been used, or a part of it is missing.</p>\
         <p>On the server, <code>voicechat admin make-admin NAME</code> makes an existing account an administrator.</p>";
    show(StatusCode::GONE, body)
}

/// The words of an error as a sentence.
fn sentence(words: &str) -> String {
    let mut letters = words.chars();
    let first = letters.next().map(|first| first.to_uppercase().collect::<String>()).unwrap_or_default();
    format!("{first}{}.", letters.as_str())
}
