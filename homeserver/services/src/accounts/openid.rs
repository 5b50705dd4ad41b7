//! Tokens for others: OpenID tokens, with which a user proves their identity to a third party, and login tokens, with which
//! a logged-in device logs another one in (`m.login.token`). Both are kept hashed; a login token is good once.
//!
//! Source: Client-Server API, "OpenID", "Token-based login"; Server-Server API, "OpenID".

use std::time::Duration;

use storage::tokens as rows;

use super::{User, secrets::hash};
use crate::{Context, Error, Result};

/// Letters of a token: 256 bits.
const SECRET_LEN: usize = 44;
const OPENID: &str = "openid";
const LOGIN: &str = "login";

/// How long these tokens last, and whether there are login tokens.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Of an OpenID token.
    pub openid_lifetime: Duration,
    /// Of a login token.
    pub login_token_lifetime: Duration,
    /// Whether a device may log another one in.
    pub is_login_token_enabled: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            openid_lifetime: Duration::from_secs(3600),
            login_token_lifetime: Duration::from_secs(120),
            is_login_token_enabled: true,
        }
    }
}

/// OpenID and login tokens. Cheap to clone.
#[derive(Debug, Clone)]
pub struct OpenId {
    cx: Context,
    settings: Settings,
}

impl OpenId {
    /// On `cx`.
    #[must_use]
    pub fn new(cx: Context, settings: Settings) -> Self {
        Self { cx, settings }
    }

    /// Whether a device may log another one in.
    #[must_use]
    pub fn is_login_token_enabled(&self) -> bool {
        self.settings.is_login_token_enabled
    }

    /// A token that proves to a third party who `user` is, and how long.
    ///
    /// # Errors
    /// The database's.
    pub async fn openid_token(&self, user: &User) -> Result<(String, Duration)> {
        let token = self.put(OPENID, user.nid, self.settings.openid_lifetime).await?;
        Ok((token, self.settings.openid_lifetime))
    }

    /// Whom an OpenID token belongs to.
    ///
    /// # Errors
    /// [`Error::UnknownToken`].
    pub async fn openid_owner(&self, token: &str) -> Result<String> {
        const UNKNOWN: Error = Error::UnknownToken { soft_logout: false };
        let mut tx = self.cx.store.read().await?;
        let found = rows::peek_short(&mut tx, OPENID, &hash(token)).await?;
        drop(tx);
        let (user_nid, expires_ms) = found.ok_or(UNKNOWN)?;
        if expires_ms <= self.cx.clock.now_ms().cast_signed() {
            return Err(UNKNOWN);
        }
        let names = self.cx.numbers.user_names(&[user_nid]).await?;
        names.get(&user_nid).map(|name| name.to_string()).ok_or(UNKNOWN)
    }

    /// A token that logs another device of `user` in, and how long.
    ///
    /// # Errors
    /// [`Error::Specific`] (`M_UNRECOGNIZED`) when the server has none.
    pub async fn login_token(&self, user: &User) -> Result<(String, Duration)> {
        if !self.settings.is_login_token_enabled {
            return Err(Error::Specific(crate::error::Code::Unrecognized, "login tokens are off".into()));
        }
        let token = self.put(LOGIN, user.nid, self.settings.login_token_lifetime).await?;
        Ok((token, self.settings.login_token_lifetime))
    }

    /// Use up a login token: its user.
    ///
    /// # Errors
    /// [`Error::Forbidden`] when it is not one, was used or has expired.
    pub async fn take_login_token(&self, token: &str) -> Result<i64> {
        let mut tx = self.cx.store.begin().await?;
        let found = rows::take_short(&mut tx, LOGIN, &hash(token)).await?;
        tx.commit().await?;
        let now_ms = self.cx.clock.now_ms().cast_signed();
        found
            .filter(|(_, expires_ms)| *expires_ms > now_ms && self.settings.is_login_token_enabled)
            .map(|(user_nid, _)| user_nid)
            .ok_or_else(|| Error::forbidden("the login token is not valid"))
    }

    async fn put(&self, kind: &str, user_nid: i64, lifetime: Duration) -> Result<String> {
        let token = self.cx.randomness.letters(SECRET_LEN);
        let lifetime_ms = i64::try_from(lifetime.as_millis()).unwrap_or(i64::MAX);
        let expires_ms = self.cx.clock.now_ms().cast_signed().saturating_add(lifetime_ms);
        let mut tx = self.cx.store.begin().await?;
        rows::put_short(&mut tx, kind, &hash(&token), user_nid, expires_ms).await?;
        tx.commit().await?;
        Ok(token)
    }
}
