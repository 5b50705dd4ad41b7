//! From sections of the file to the settings each service owns. The only code that knows both.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

use anyhow::Context as _;
use ruma::OwnedServerName;
use services::{
    DatabaseSettings,
    accounts::{self, openid, password, registration, tokens},
    appservices::{
        self,
        registry::{self, Hidden},
    },
    context, federation,
    limits::{self, Rate},
    media, outgoing, presence, turn, well_known,
};

use super::{Config, sections::RegistrationMode, value::Listen};
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
    pub fn public_url(&self, address: SocketAddr) -> String {
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

    /// For the services of a server that clients reach directly at `client_address`. `registrations` are those of the application
    /// services that run beside it, which need no file.
    ///
    /// # Errors
    /// When a file that the configuration names cannot be read.
    pub fn services(
        &self,
        client_address: SocketAddr,
        registrations: Vec<Hidden>,
    ) -> anyhow::Result<services::Settings> {
        Ok(services::Settings {
            valkey_url: self.valkey.url.as_ref().map(|url| url.expose().to_owned()),
            limits: self.limits(),
            accounts: self.accounts(),
            appservices: self.appservices(registrations),
            keys: services::keys::Settings {
                tells_device_names: self.federation.device_names,
                ..services::keys::Settings::default()
            },
            rooms: self.rooms()?,
            federation: self.federation()?,
            media: self.media(),
            presence: presence::Settings { is_on: self.presence.enabled, ..presence::Settings::default() },
            turn: turn::Settings {
                uris: self.turn.uris.clone(),
                secret: self.turn.secret.as_ref().map(|secret| secret.expose().to_owned()),
                lifetime: self.turn.lifetime,
            },
            well_known: self.well_known(client_address)?,
        })
    }

    fn rooms(&self) -> anyhow::Result<services::rooms::Settings> {
        let version = &self.rooms.default_version;
        let default_version =
            ruma::RoomVersionId::try_from(version.as_str())
                .ok()
                .filter(room::versions::can_create)
                .with_context(|| format!("rooms.default_version: rooms of version {version} are not made here"))?;
        Ok(services::rooms::Settings { default_version })
    }

    fn limits(&self) -> limits::Settings {
        let limits = &self.limits;
        limits::Settings {
            is_off: !limits.enabled,
            login: Rate::new(limits.login_burst, limits.login_per_minute),
            login_failure: Rate::new(limits.login_failure_burst, limits.login_failure_per_minute),
            registration: Rate::new(limits.registration_burst, limits.registration_per_minute),
            message: Rate::new(limits.message_burst, limits.message_per_minute),
            join: Rate::new(limits.join_burst, limits.join_per_minute),
            media: Rate::new(limits.media_burst, limits.media_per_minute),
            request: Rate::new(limits.request_burst, limits.request_per_minute),
        }
    }

    fn media(&self) -> media::Settings {
        let media = &self.media;
        media::Settings {
            folder: media.dir.clone().unwrap_or_else(|| self.server.data_dir.join("media")),
            key_file: self.server.data_dir.join("media.key"),
            upload_bytes_max: media.upload_max.0,
            remote_bytes_max: media.upload_max.0,
            remote_kept: media.remote_kept_for,
            is_frozen: !media.unauthenticated,
            ..media::Settings::default()
        }
    }

    fn accounts(&self) -> accounts::Settings {
        let (accounts, registration) = (&self.accounts, &self.registration);
        let policy = |url: &String| registration::Policy {
            id: "terms".to_owned(),
            version: registration.terms_version.clone(),
            language: "en".to_owned(),
            name: "Terms of service".to_owned(),
            url: url.clone(),
        };
        accounts::Settings {
            password: password::Settings {
                memory_kib: u32::try_from(accounts.password_memory.0 >> 10).unwrap_or(u32::MAX),
                passes: accounts.password_passes,
                lanes: accounts.password_lanes,
                len_min: usize::try_from(accounts.password_length_min).unwrap_or(usize::MAX),
            },
            tokens: tokens::Settings {
                access_lifetime: accounts.access_token_lifetime,
                refresh_lifetime: accounts.refresh_token_lifetime,
            },
            registration: registration::Settings {
                access: match registration.mode {
                    RegistrationMode::Open => registration::Access::Open,
                    RegistrationMode::Token => registration::Access::Token,
                    RegistrationMode::Closed => registration::Access::Closed,
                },
                allows_guests: registration.guests,
                policies: registration.terms_url.iter().map(policy).collect(),
                shared_secret: registration.shared_secret.as_ref().map(|secret| secret.expose().to_owned()),
            },
            openid: openid::Settings {
                openid_lifetime: accounts.openid_token_lifetime,
                is_login_token_enabled: accounts.login_tokens,
                ..openid::Settings::default()
            },
        }
    }

    fn appservices(&self, registrations: Vec<Hidden>) -> appservices::Settings {
        appservices::Settings {
            registry: registry::Settings { files: self.appservices.registrations.clone(), texts: registrations },
            request_timeout: self.appservices.request_timeout,
            retry_pause_max: self.appservices.retry_pause_max,
        }
    }

    fn federation(&self) -> anyhow::Result<federation::Settings> {
        let notaries = self.federation.notaries.iter().map(|name| OwnedServerName::try_from(name.as_str()));
        Ok(federation::Settings {
            is_enabled: self.federation.enabled,
            outgoing: outgoing::Settings {
                allow_private_addresses: self.federation.allow_private_addresses,
                trusted_authorities: self.trusted_authorities()?,
            },
            notaries: notaries.collect::<Result<_, _>>().context("federation.notaries")?,
        })
    }

    fn well_known(&self, client_address: SocketAddr) -> anyhow::Result<well_known::Settings> {
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
    pub fn federation_address(&self) -> Option<SocketAddr> {
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
pub fn local_url(address: SocketAddr) -> String {
    let host = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    format!("http://{}", SocketAddr::new(host, address.port()))
}
