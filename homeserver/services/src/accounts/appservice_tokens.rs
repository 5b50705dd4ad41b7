//! What accounts must know of application services: a seam that the service of that name fills.

use std::{fmt, sync::Arc};

use ruma::{OwnedUserId, UserId};

/// An application service that proved itself by its token.
#[derive(Debug, Clone)]
pub struct AppserviceIdentity {
    /// The id in its registration.
    pub id: Arc<str>,
    /// The user it is when it does not say otherwise.
    pub sender: OwnedUserId,
    /// Whether rate limits apply to it.
    pub is_rate_limited: bool,
}

/// What accounts must know of application services.
pub trait AppserviceTokens: fmt::Debug + Send + Sync {
    /// The application service with this token.
    fn by_token(&self, token: &str) -> Option<AppserviceIdentity>;
    /// Whether the application service may act as `user`.
    fn may_be(&self, id: &str, user: &UserId) -> bool;
    /// Whether `user` lies in a namespace that some application service other than `id` has for itself.
    fn is_reserved(&self, id: Option<&str>, user: &UserId) -> bool;
}
