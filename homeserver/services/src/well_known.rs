//! Where this server is found: what its `.well-known` documents say.

use ruma::OwnedServerName;

/// What the operator says of it.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Base URL for clients, without a slash at the end.
    pub client_url: String,
    /// Where other servers go instead of port 8448 of the server name.
    pub server: Option<OwnedServerName>,
    /// Matrix id of an administrator.
    pub support_user: Option<String>,
    /// E-mail address of an administrator.
    pub support_email: Option<String>,
    /// Page with help.
    pub support_page: Option<String>,
    /// JWT services of LiveKit foci, best first.
    pub livekit_urls: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            client_url: "http://localhost:8008".to_owned(),
            server: None,
            support_user: None,
            support_email: None,
            support_page: None,
            livekit_urls: Vec::new(),
        }
    }
}

/// Answers where this server is.
#[derive(Debug, Clone)]
pub struct WellKnown {
    server_name: OwnedServerName,
    settings: Settings,
}

impl WellKnown {
    /// With what the operator says.
    #[must_use]
    pub fn new(server_name: OwnedServerName, settings: Settings) -> Self {
        Self { server_name, settings }
    }

    /// Its name.
    #[must_use]
    pub fn server_name(&self) -> &str {
        self.server_name.as_str()
    }

    /// All of it.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }
}
