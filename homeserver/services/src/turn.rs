//! Credentials for the operator's TURN servers, which carry calls between two clients that cannot reach each other.
//!
//! The TURN server shares a secret with us and believes a user name that says until when it holds, with its signature as the
//! password (coturn: `use-auth-secret`).
//! Source: Client-Server API, "Voice over IP"; draft-uberti-behave-turn-rest.

use std::{fmt, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use ruma::UserId;
use sha1::Sha1;

use crate::{Context, Error, Result};

/// The operator's TURN servers.
#[derive(Clone)]
pub struct Settings {
    /// Their addresses, `turn:HOST?transport=udp`; none when there is none.
    pub uris: Vec<String>,
    /// What they share with us.
    pub secret: Option<String>,
    /// How long credentials last.
    pub lifetime: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { uris: Vec::new(), secret: None, lifetime: Duration::from_secs(24 * 3600) }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("uris", &self.uris).field("lifetime", &self.lifetime).finish_non_exhaustive()
    }
}

/// What a client shows a TURN server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Until when, and who.
    pub username: String,
    /// The signature of the user name.
    pub password: String,
    /// Where.
    pub uris: Vec<String>,
    /// How long they last.
    pub lifetime: Duration,
}

/// Gives out credentials. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Turn {
    cx: Context,
    settings: Settings,
}

impl Turn {
    /// For these servers.
    #[must_use]
    pub fn new(cx: Context, settings: Settings) -> Self {
        Self { cx, settings }
    }

    /// Credentials for `user`; `None` when there is no TURN server.
    ///
    /// # Errors
    /// [`Error::Internal`] when they cannot be signed, which does not happen.
    pub fn credentials(&self, user: &UserId) -> Result<Option<Credentials>> {
        let Settings { uris, secret: Some(secret), lifetime } = &self.settings else { return Ok(None) };
        if uris.is_empty() {
            return Ok(None);
        }
        let until_s = self.cx.clock.now_ms() / 1000 + lifetime.as_secs();
        let username = format!("{until_s}:{user}");
        let mut mac = Hmac::<Sha1>::new_from_slice(secret.as_bytes()).map_err(Error::internal)?;
        mac.update(username.as_bytes());
        let password = STANDARD.encode(mac.finalize().into_bytes());
        Ok(Some(Credentials { username, password, uris: uris.clone(), lifetime: *lifetime }))
    }
}
