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
pub mod devices;
pub mod error;
pub mod federation;
pub mod joined;
pub mod limits;
pub mod notify;
pub mod presence;
pub mod profiles;
pub mod receipts;
pub mod timeline;
pub mod typing;
pub mod valkey;
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
    /// Rates.
    pub limits: limits::Limits,
    /// Accounts and access tokens.
    pub accounts: accounts::Accounts,
    /// Devices.
    pub devices: devices::Devices,
    /// Profiles.
    pub profiles: profiles::Profiles,
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

/// The settings of every service.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Where instances share rates and refresh tokens; a single instance needs none.
    pub valkey_url: Option<String>,
    /// Rates.
    pub limits: limits::Settings,
    /// Accounts.
    pub accounts: accounts::Settings,
}

impl Services {
    /// Make every service, the lowest floor first.
    ///
    /// # Errors
    /// What a service's start may meet.
    pub async fn start(cx: Context, settings: Settings) -> Result<Self> {
        let valkey = match &settings.valkey_url {
            Some(url) => Some(valkey::Valkey::connect(url, cx.server_name.as_str()).await?),
            None => None,
        };
        let limits = limits::Limits::new(cx.clone(), settings.limits, valkey.clone());
        let accounts = accounts::Accounts::start(cx.clone(), settings.accounts, limits.clone(), valkey).await?;
        let devices = devices::Devices::start(cx.clone(), accounts.tokens.clone());
        let profiles = profiles::Profiles::new(cx.clone());
        let timeline = timeline::Timeline::start(cx.clone());
        let federation = federation::Federation::new(cx.clone());
        let presence = presence::Presence::new(cx.clone(), presence::Settings::default());
        let receipts = receipts::Receipts::new(cx.clone());
        let typing = typing::Typing::new(cx);
        Ok(Self(Arc::new(All {
            limits,
            accounts,
            devices,
            profiles,
            timeline,
            federation,
            presence,
            receipts,
            typing,
        })))
    }
}

impl Deref for Services {
    type Target = All;

    fn deref(&self) -> &All {
        &self.0
    }
}
