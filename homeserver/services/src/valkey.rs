//! The connection to Valkey (or Redis) for small things that instances share: rate limits and refresh tokens.
//!
//! News between instances have connections of their own ([`crate::notify::valkey`]).

use std::{fmt, time::Duration};

use fred::{
    clients::Client,
    interfaces::ClientLike as _,
    types::{
        Builder,
        config::{Config, ReconnectPolicy},
    },
};

use crate::{Error, Result};

/// How long a command may take before whoever asked goes on without.
const COMMAND_TIMEOUT: Duration = Duration::from_millis(500);

/// A connection and the prefix of our keys. Cheap to clone.
#[derive(Clone)]
pub struct Valkey {
    client: Client,
    prefix: String,
}

impl fmt::Debug for Valkey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Valkey").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl Valkey {
    /// Connect to `url`; keys begin with `voicechat:SERVER:`.
    ///
    /// # Errors
    /// [`Error::Internal`] when the address is wrong or nobody answers.
    pub async fn connect(url: &str, server_name: &str) -> Result<Self> {
        let config = Config::from_url(url).map_err(|error| Error::Internal(format!("valkey address: {error}")))?;
        let mut builder = Builder::from_config(config);
        builder.with_performance_config(|performance| performance.default_command_timeout = COMMAND_TIMEOUT);
        builder.with_connection_config(|connection| connection.max_command_attempts = 1);
        builder.set_policy(ReconnectPolicy::new_exponential(0, 100, 5_000, 2));
        let client = builder.build().map_err(Error::internal)?;
        client.init().await.map_err(|error| Error::Internal(format!("valkey does not answer: {error}")))?;
        Ok(Self { client, prefix: format!("voicechat:{server_name}:") })
    }

    /// End the connection; whoever asks afterwards gets an error.
    pub async fn close(&self) {
        if let Err(error) = self.client.quit().await {
            tracing::debug!(%error, "the connection to valkey had ended");
        }
    }

    /// Whether the connection stands, as far as is known.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.client.is_connected()
    }

    /// The connection.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// What every key of ours begins with.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }
}
