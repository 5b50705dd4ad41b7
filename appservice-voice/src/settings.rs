//! What the voice service needs to know before it starts. Plain values; whoever owns a configuration file fills them in.

use std::{net::IpAddr, path::PathBuf};

use crate::sfu::Ports;

/// First and last UDP port for media.
pub const UDP_PORTS: (u16, u16) = (10_000, 10_100);

/// Settings of [`crate::start`].
#[derive(Clone)]
pub struct Settings {
    /// Where the homeserver's client API is, e.g. `http://127.0.0.1:8008`.
    pub homeserver_url: String,
    /// The name in the user ids of the homeserver.
    pub server_name: String,
    /// Presented to the homeserver.
    pub as_token: String,
    /// Expected from the homeserver.
    pub hs_token: String,
    pub sender_localpart: String,
    /// Where clients reach this service, e.g. `https://voice.example.org`; written into call memberships.
    pub public_url: String,
    /// Where the file with live memberships is kept.
    pub data_dir: PathBuf,
    pub media: Ports,
    /// PEM certificates trusted besides the system's, for other servers' OpenID endpoints.
    pub trusted_ca_pem: Option<Vec<u8>>,
    /// Allow other servers at private, loopback and link-local addresses. For tests and closed networks.
    pub allow_private_addresses: bool,
}

impl Default for Settings {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            homeserver_url: "http://127.0.0.1:8008".to_owned(),
            server_name: "localhost".to_owned(),
            as_token: String::new(),
            hs_token: String::new(),
            sender_localpart: "voice".to_owned(),
            public_url: "http://127.0.0.1:8008".to_owned(),
            data_dir: PathBuf::from("data"),
            media: Ports {
                bind: IpAddr::from([0, 0, 0, 0]),
                first: UDP_PORTS.0,
                last: UDP_PORTS.1,
                shards: cores,
                advertised: Vec::new(),
            },
            trusted_ca_pem: None,
            allow_private_addresses: false,
        }
    }
}

// Tokens must not reach a log through `{:?}`.
impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("homeserver_url", &self.homeserver_url)
            .field("server_name", &self.server_name)
            .field("public_url", &self.public_url)
            .field("media", &self.media)
            .finish_non_exhaustive()
    }
}
