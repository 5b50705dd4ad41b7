//! Who somebody is: accounts and the access tokens that prove them.

use std::sync::Arc;

use ruma::{OwnedDeviceId, OwnedUserId};

use crate::{Context, Error, Result};

/// A local user who proved their identity.
#[derive(Debug, Clone)]
pub struct User {
    /// Their id.
    pub user_id: OwnedUserId,
    /// Their number.
    pub nid: i64,
    /// The device the token belongs to; `None` for application services without one.
    pub device_id: Option<OwnedDeviceId>,
    /// SHA-256 of the access token, hexadecimal.
    pub token_hash: Arc<str>,
    /// The application service that speaks for them.
    pub appservice: Option<Arc<str>>,
    /// Server administrators may do what their API offers.
    pub is_admin: bool,
}

/// Whom an application service wants to be, from the query.
#[derive(Debug, Clone, Default)]
pub struct Masquerade {
    /// `user_id`.
    pub user_id: Option<String>,
    /// `device_id` (MSC4326).
    pub device_id: Option<String>,
}

/// Accounts of this server. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Accounts {
    cx: Context,
}

impl Accounts {
    /// On `cx`.
    #[must_use]
    pub fn new(cx: Context) -> Self {
        Self { cx }
    }

    /// Whom an access token belongs to.
    ///
    /// # Errors
    /// [`Error::UnknownToken`]; [`Error::Forbidden`] when an application service wants to be a user outside its namespaces.
    pub async fn authenticate(&self, _token: &str, _masquerade: &Masquerade) -> Result<User> {
        let _ = &self.cx;
        Err(Error::UnknownToken { soft_logout: false })
    }
}
