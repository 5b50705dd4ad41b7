//! `/voicechat/terms`: the documents a user accepts when registering, as a page of links.

use axum::{extract::State, http::header, response::IntoResponse};
use services::Services;

use super::{
    call::Reply,
    error::ApiError,
    page::{escape, page},
};

/// The path.
pub const PATH: &str = "/voicechat/terms";

/// `GET`: the page.
pub async fn get(State(services): State<Services>) -> Reply<impl IntoResponse> {
    let policies = &services.accounts.registration.settings().policies;
    if policies.is_empty() {
        return Err(ApiError::not_found("this server has no terms"));
    }
    let links: String = policies
        .iter()
        .map(|policy| {
            let (url, name, version) = (escape(&policy.url), escape(&policy.name), escape(&policy.version));
            format!("<li><a href=\"{url}\">{name}</a> (version {version})</li>")
        })
        .collect();
    let html = page("Terms", &format!("<h1>Terms of this server</h1><ul>{links}</ul>"));
    let policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";
    Ok(([(header::CONTENT_SECURITY_POLICY, policy)], axum::response::Html(html)))
}
