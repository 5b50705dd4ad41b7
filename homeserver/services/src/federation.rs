//! The way out to other servers, and what both ways share.
//!
//! | module | question it answers |
//! |---|---|
//! | [`discovery`] | where is a server of this name? |
//! | [`client`] | how is it asked, and what may that cost? |
//! | [`health`] | who does not answer, and when is it asked again? |
//! | [`signing`] | what do we sign with? |
//! | [`keys`] | what do others sign with? |
//! | `auth` | who asks us? |
//! | [`queue`] | what are they told, and when? |
//!
//! Not here: what comes in ([`crate::incoming`]).

mod auth;
pub mod client;
pub mod discovery;
pub mod health;
pub mod keys;
pub mod queue;
mod remote_directory;
mod remote_keys;
mod remote_media;
mod remote_profiles;
mod remote_spaces;

pub use crate::signing;

use ruma::OwnedServerName;

use crate::{
    Context, Result,
    outgoing::{self, Outgoing},
};
use client::Client;
use health::Health;
use keys::Keys;

/// Events of one transaction, in either direction.
pub const PDUS_PER_TRANSACTION_MAX: usize = 50;
/// Ephemeral units of one transaction, in either direction.
pub const EDUS_PER_TRANSACTION_MAX: usize = 100;

/// How we deal with other servers.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whether we deal with other servers at all.
    pub is_enabled: bool,
    /// Whom to trust and where not to go.
    pub outgoing: outgoing::Settings,
    /// Servers asked for the keys of servers that do not answer.
    pub notaries: Vec<OwnedServerName>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { is_enabled: true, outgoing: outgoing::Settings::default(), notaries: Vec::new() }
    }
}

/// Federation with other servers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Federation {
    cx: Context,
    settings: Settings,
    client: Client,
    keys: Keys,
}

impl Federation {
    /// With these settings, and with what the last run learned of other servers.
    ///
    /// # Errors
    /// The database's; [`crate::Error::Internal`] when a client cannot be set up.
    pub async fn start(cx: Context, settings: Settings, outgoing: Outgoing) -> Result<Self> {
        let health = Health::load(cx.clone()).await?;
        let client = Client::new(cx.clone(), settings.is_enabled, outgoing, health)?;
        let keys = Keys::new(cx.clone(), client.clone(), settings.notaries.clone());
        Ok(Self { cx, settings, client, keys })
    }

    /// Asks other servers.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Keys of other servers, and our own.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Replace the key this server signs with; see [`signing::rotate`]. Returns the ids of the old one and the new one.
    ///
    /// # Errors
    /// The database's.
    pub async fn rotate_key(&self) -> Result<(String, String)> {
        let new = signing::rotate(&self.cx.store, &self.cx.randomness, &self.cx.clock).await?;
        Ok((self.cx.signing_key.id(), new.id()))
    }
}
