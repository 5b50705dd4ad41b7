//! What every service stands on: the database, the names' numbers, time, randomness, our name and key, and the news.
//!
//! Not here: anything a single service owns (caches, settings, clients). A service gets a [`Context`] and what else it needs
//! when it is made, in [`crate::Services::start`].

use std::{ops::Deref, sync::Arc};

use ruma::{OwnedServerName, ServerName, UserId};
use storage::{Store, numbers::Numbers};

use crate::{
    Result,
    clock::{Clock, Randomness},
    notify::{Notify, valkey::Valkey},
    signing::{self, SigningKey},
};

/// What the floor is made of.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The part of a Matrix id after the colon.
    pub server_name: OwnedServerName,
    /// The database.
    pub database: storage::Settings,
    /// Address of Valkey or Redis, when other instances share the database.
    pub valkey_url: Option<String>,
}

/// The floor under all services. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Context(Arc<Ground>);

/// The fields of a [`Context`].
#[derive(Debug)]
pub struct Ground {
    /// The part of a Matrix id after the colon.
    pub server_name: OwnedServerName,
    /// The database.
    pub store: Store,
    /// Numbers of users, servers, state keys.
    pub numbers: Numbers,
    /// The time.
    pub clock: Clock,
    /// Random numbers.
    pub randomness: Randomness,
    /// The key we sign with.
    pub signing_key: SigningKey,
    /// Tells everybody what changed.
    pub notify: Notify,
}

impl Context {
    /// Open the database, bring its schema up to date, and listen to the other instances.
    ///
    /// # Errors
    /// What the database or Valkey says.
    pub async fn open(settings: Settings) -> Result<Self> {
        let Settings { server_name, database, valkey_url } = settings;
        let (clock, randomness) = (Clock::system(), Randomness::system());
        let store = Store::connect(&database).await?;
        let numbers = Numbers::new(store.clone(), &server_name);
        let signing_key = signing::load_or_create(&store, &randomness).await?;
        let notify = Notify::start(store.clone()).await?;
        if let Some(url) = valkey_url {
            notify.connect(Box::new(Valkey::connect(&url, server_name.as_str(), &randomness, &notify).await?));
        }
        Ok(Self::new(Ground { server_name, store, numbers, clock, randomness, signing_key, notify }))
    }

    /// From its parts.
    #[must_use]
    pub fn new(ground: Ground) -> Self {
        Self(Arc::new(ground))
    }

    /// True when `user` is one of ours.
    #[must_use]
    pub fn is_local(&self, user: &UserId) -> bool {
        user.server_name() == self.server_name
    }

    /// True when `server` is us.
    #[must_use]
    pub fn is_us(&self, server: &ServerName) -> bool {
        server == self.server_name
    }

    /// For [`room::build`]: our name and key.
    #[must_use]
    pub fn signer(&self) -> room::build::Signer<'_> {
        room::build::Signer { server: &self.server_name, key: self.signing_key.pair() }
    }
}

impl Deref for Context {
    type Target = Ground;

    fn deref(&self) -> &Ground {
        &self.0
    }
}
