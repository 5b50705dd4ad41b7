//! Every rule of the homeserver that needs IO.
//!
//! One struct a noun, cheap to clone, made once in [`Services::start`] with what it depends on: the arrows between services are the
//! arguments of their constructors, and they never form a circle. Services know nothing of HTTP: what they take and return are
//! plain values, events and the specification's own content types. Nothing here is reached from below ([`storage`], [`room`]).
//!
//! Floors, lowest first: `clock error notify federation::signing` → `context` → `accounts devices keys to_device account_data profiles
//! receipts typing presence media appservices push federation` → `timeline` → `rooms incoming sync`.

pub mod accounts;
pub mod appservices;
pub mod clock;
pub mod context;
pub mod devices;
pub mod error;
pub mod federation;
pub mod joined;
pub mod limits;
pub mod notify;
pub mod outgoing;
pub mod presence;
pub mod profiles;
pub mod receipts;
pub mod timeline;
pub mod typing;
pub mod valkey;
pub mod view;
pub mod welcome;
pub mod well_known;

pub use context::Context;
pub use error::{Error, Result};
pub use storage::Settings as DatabaseSettings;

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
    /// Bridges, bots and the voice service.
    pub appservices: appservices::Appservices,
    /// Events of rooms.
    pub timeline: timeline::Timeline,
    /// Devices.
    pub devices: devices::Devices,
    /// Profiles.
    pub profiles: profiles::Profiles,
    /// Other servers.
    pub federation: federation::Federation,
    /// Who is there.
    pub presence: presence::Presence,
    /// Who has read what.
    pub receipts: receipts::Receipts,
    /// Who types where.
    pub typing: typing::Typing,
    /// The first administrator's link.
    pub welcome: welcome::Welcome,
    /// Where this server is found.
    pub well_known: well_known::WellKnown,
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
    /// Application services.
    pub appservices: appservices::Settings,
    /// Other servers.
    pub federation: federation::Settings,
    /// Who is there.
    pub presence: presence::Settings,
    /// Where this server is found.
    pub well_known: well_known::Settings,
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
        let registry = appservices::registry::Registry::load(&settings.appservices.registry, &cx.server_name)?;
        let limits = limits::Limits::new(cx.clone(), settings.limits, valkey.clone());
        let accounts = accounts::Accounts::start(cx.clone(), settings.accounts, limits.clone(), valkey).await?;
        accounts.tokens.connect_appservices(Arc::new(registry.clone()));
        let timeline = timeline::Timeline::start(cx.clone());
        let outgoing = settings.federation.outgoing.clone();
        let appservices = appservices::Appservices::start(
            cx.clone(),
            &settings.appservices,
            registry,
            &outgoing,
            &accounts,
            &timeline,
        )
        .await?;
        let devices = devices::Devices::start(cx.clone(), accounts.tokens.clone());
        let profiles = profiles::Profiles::new(cx.clone());
        let federation = federation::Federation::start(cx.clone(), settings.federation).await?;
        let presence = presence::Presence::new(cx.clone(), settings.presence);
        let receipts = receipts::Receipts::new(cx.clone());
        let typing = typing::Typing::new(cx.clone());
        let welcome = welcome::Welcome::new(cx.clone(), accounts.clone());
        let well_known = well_known::WellKnown::new(cx.server_name.clone(), settings.well_known);
        Ok(Self(Arc::new(All {
            limits,
            accounts,
            appservices,
            timeline,
            devices,
            profiles,
            federation,
            presence,
            receipts,
            typing,
            welcome,
            well_known,
        })))
    }
}

impl Deref for Services {
    type Target = All;

    fn deref(&self) -> &All {
        &self.0
    }
}
