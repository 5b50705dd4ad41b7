//! Who sent a request, once they proved it. What they may do is for the services to say.

use std::sync::Arc;

use ruma::{OwnedDeviceId, OwnedUserId, UserId};

use crate::{Error, Result};

/// A local user who proved their identity.
#[derive(Debug, Clone)]
pub struct User {
    /// Their id.
    pub user_id: OwnedUserId,
    /// Their number.
    pub nid: i64,
    /// The device the token belongs to; `None` for application services without one.
    pub device_id: Option<OwnedDeviceId>,
    /// What the access token is known as: its SHA-256 (of a JWT's `jti`), hexadecimal.
    pub token_hash: Arc<str>,
    /// The application service that speaks for them.
    pub appservice: Option<Arc<str>>,
    /// Server administrators may do what their API offers.
    pub is_admin: bool,
    /// May do nothing but log out; the routes see to it.
    pub is_locked: bool,
    /// May read, leave and log out, not speak.
    pub is_suspended: bool,
    /// May use what the specification lists for guests; the routes see to it.
    pub is_guest: bool,
    /// False for application services that are free of limits.
    pub is_rate_limited: bool,
}

impl User {
    /// Refuse unless this user is `user_id`.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub fn must_be(&self, user_id: &UserId) -> Result<()> {
        if self.user_id == user_id { Ok(()) } else { Err(Error::forbidden("this belongs to another user")) }
    }

    /// Refuse unless this user is a server administrator.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub fn must_be_admin(&self) -> Result<()> {
        if self.is_admin { Ok(()) } else { Err(Error::forbidden("only server administrators may do this")) }
    }
}

/// Whom an application service wants to be, from the query.
#[derive(Debug, Clone, Default)]
pub struct Masquerade {
    /// `user_id`.
    pub user_id: Option<String>,
    /// `device_id` (MSC4326).
    pub device_id: Option<String>,
}
