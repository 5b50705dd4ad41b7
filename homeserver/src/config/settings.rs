//! From sections of the file to the settings each service owns. The only code that knows both.

use std::path::PathBuf;

use anyhow::Context as _;
use ruma::OwnedServerName;
use services::{DatabaseSettings, context, well_known};

use super::{Config, value::Listen};
use crate::serve::{self, Network, TrustedProxies, tls};

impl Config {
    /// The server's name.
    ///
    /// # Errors
    /// Never for a configuration that was loaded: the name was checked.
    pub fn server_name(&self) -> anyhow::Result<OwnedServerName> {
        OwnedServerName::try_from(self.server.name.as_str()).context("server.name")
    }

    /// Where clients reach the server when it listens on `address`, without a slash at the end.
    #[must_use]
    pub fn public_url(&self, address: std::net::SocketAddr) -> String {
        let url = self.server.public_url.clone().unwrap_or_else(|| local_url(address));
        url.trim_end_matches('/').to_owned()
    }

    /// For the floor under the services.
    ///
    /// # Errors
    /// As [`Config::server_name`].
    pub fn context(&self) -> anyhow::Result<context::Settings> {
        let url = match &self.database.url {
            Some(url) => url.expose().to_owned(),
            None => format!("sqlite://{}", self.server.data_dir.join("voicechat.db").display()),
        };
        let mut database = DatabaseSettings::new(url);
        database.connections_max = self.database.connections_max;
        database.sync_full = self.database.durable;
        let valkey_url = self.valkey.url.as_ref().map(|url| url.expose().to_owned());
        Ok(context::Settings { server_name: self.server_name()?, database, valkey_url })
    }

    /// For the services of a server that clients reach directly at `client_address`.
    ///
    /// # Errors
    /// When a file that the configuration names cannot be read.
    pub fn services(&self, client_address: std::net::SocketAddr) -> anyhow::Result<services::Settings> {
        Ok(services::Settings { well_known: self.well_known(client_address)? })
    }

    fn well_known(&self, client_address: std::net::SocketAddr) -> anyhow::Result<well_known::Settings> {
        let delegate = self.server.delegate.as_deref().map(OwnedServerName::try_from);
        Ok(well_known::Settings {
            client_url: self.public_url(client_address),
            server: delegate.transpose().context("server.delegate")?,
            support_user: self.server.support_user.clone(),
            support_email: self.server.support_email.clone(),
            support_page: self.server.support_page.clone(),
            livekit_urls: self.voice.livekit_urls.clone(),
        })
    }

    /// For the listeners.
    #[must_use]
    pub fn listeners(&self) -> serve::Settings {
        let proxies = self.listen.trusted_proxies.iter().filter_map(|text| Network::parse(text)).collect();
        serve::Settings {
            trusted_proxies: TrustedProxies(proxies),
            connections_max: usize::try_from(self.listen.connections_max).unwrap_or(usize::MAX),
            ..serve::Settings::default()
        }
    }

    /// Certificate and key of the federation listener: the operator's, or self-made ones.
    ///
    /// # Errors
    /// When the data directory cannot be written.
    pub fn tls_files(&self) -> anyhow::Result<tls::Files> {
        match (&self.listen.tls_certificate, &self.listen.tls_key) {
            (Some(certificate), Some(key)) => Ok(tls::Files { certificate: certificate.clone(), key: key.clone() }),
            _ => tls::self_made(&self.server.data_dir, &self.server_name()?),
        }
    }

    /// Where the federation listener listens.
    #[must_use]
    pub fn federation_address(&self) -> Option<std::net::SocketAddr> {
        match self.listen.federation {
            Listen::On(address) if self.federation.enabled => Some(address),
            _ => None,
        }
    }

    /// The PEM texts of the authorities to trust besides the well-known ones.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn trusted_authorities(&self) -> anyhow::Result<Vec<Vec<u8>>> {
        let read =
            |path: &PathBuf| std::fs::read(path).with_context(|| format!("trusted authority {}", path.display()));
        self.federation.trusted_ca_files.iter().map(read).collect()
    }
}

/// How this machine reaches a listener on `address`.
#[must_use]
pub fn local_url(address: std::net::SocketAddr) -> String {
    let host = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        std::net::IpAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
        std::net::IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
    };
    format!("http://{}", std::net::SocketAddr::new(host, address.port()))
}
