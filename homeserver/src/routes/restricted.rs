//! What locked users and guests may ask for.
//!
//! Source: Client-Server API, "Account locking", "Guest access".

use axum::http::Method;
use services::{
    accounts::User,
    error::{Code, Error},
};

use super::error::ApiError;

/// Refuse what `user` may not do because they are locked or a guest.
///
/// # Errors
/// `M_USER_LOCKED`, `M_GUEST_ACCESS_FORBIDDEN`.
pub fn check(user: &User, method: &Method, path: &str) -> Result<(), ApiError> {
    if !user.is_locked && !user.is_guest {
        return Ok(());
    }
    let words = words(path);
    if user.is_locked && !matches!(words.as_slice(), ["logout"] | ["logout", "all"]) {
        return Err(Error::Specific(Code::UserLocked, "this account has been locked".into()).into());
    }
    if user.is_guest && !guests_may(method, &words) {
        return Err(Error::Specific(Code::GuestAccessForbidden, "guests may not do this".into()).into());
    }
    Ok(())
}

/// What stands after `/_matrix/client/VERSION/`.
fn words(path: &str) -> Vec<&str> {
    path.trim_start_matches("/_matrix/client/").split('/').skip(1).collect()
}

/// The specification's list, and what no client can do without (logging out, filters, read markers).
fn guests_may(method: &Method, words: &[&str]) -> bool {
    matches!(
        (method.as_str(), words),
        ("GET", ["rooms", _, "state" | "context" | "event" | "messages" | "members" | "initialSync", ..])
            | ("GET", ["sync" | "events" | "devices" | "versions" | "capabilities" | "pushrules" | "profile", ..])
            | ("GET", ["media", "download" | "thumbnail" | "config", ..])
            | ("GET", ["account", "whoami"])
            | ("GET" | "POST", ["user", _, "filter", ..])
            | ("POST", ["rooms", _, "join" | "leave" | "read_markers" | "receipt", ..])
            | ("POST", ["join", _] | ["logout", ..] | ["keys", "upload" | "query" | "claim"])
            | ("PUT", ["rooms", _, "send" | "state", ..])
            | ("PUT", ["sendToDevice", ..] | ["devices", _])
            | ("PUT" | "DELETE", ["profile", _, "displayname"])
    )
}
