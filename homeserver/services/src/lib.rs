//! Every rule of the homeserver that needs IO.
//!
//! One struct a noun, cheap to clone, made once in [`Services::start`] with what it depends on: the arrows between services are the
//! arguments of their constructors, and they never form a circle. Services know nothing of HTTP: what they take and return are
//! plain values, events and the specification's own content types. Nothing here is reached from below ([`storage`], [`room`]).
//!
//! Floors, lowest first: `clock error notify federation::signing` → `context` → `accounts devices keys to_device account_data profiles
//! receipts typing presence media appservices push federation` → `timeline` → `rooms incoming sync`.

pub mod accounts;
pub mod clock;
pub mod context;
pub mod error;
pub mod federation;
pub mod joined;
pub mod notify;
pub mod outgoing;
pub mod presence;
pub mod receipts;
pub mod timeline;
pub mod typing;
pub mod view;

pub use context::Context;
pub use error::{Error, Result};

use std::{ops::Deref, sync::Arc};

/// The handle given to routes: every service by its noun. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Services(Arc<All>);

/// The services.
#[derive(Debug)]
pub struct All {
    /// Accounts and access tokens.
    pub accounts: accounts::Accounts,
    /// Events of rooms.
    pub timeline: timeline::Timeline,
    /// Other servers.
    pub federation: federation::Federation,
    /// Who is there.
    pub presence: presence::Presence,
    /// Who has read what.
    pub receipts: receipts::Receipts,
    /// Who types where.
    pub typing: typing::Typing,
}

/// The settings of the services that have any.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Other servers.
    pub federation: federation::Settings,
}

impl Services {
    /// Make every service, the lowest floor first.
    ///
    /// # Errors
    /// What a service's start may meet.
    pub async fn start(cx: Context, settings: Settings) -> Result<Self> {
        let accounts = accounts::Accounts::new(cx.clone());
        let timeline = timeline::Timeline::start(cx.clone());
        let federation = federation::Federation::start(cx.clone(), settings.federation).await?;
        let presence = presence::Presence::new(cx.clone(), presence::Settings::default());
        let receipts = receipts::Receipts::new(cx.clone());
        let typing = typing::Typing::new(cx);
        Ok(Self(Arc::new(All { accounts, timeline, federation, presence, receipts, typing })))
    }
}

impl Deref for Services {
    type Target = All;

    fn deref(&self) -> &All {
        &self.0
    }
}
