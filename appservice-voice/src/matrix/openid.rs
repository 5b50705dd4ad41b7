//! Who is it that presents an OpenID token? Asked of the homeserver that the token names, with the usual care before
//! talking to an address that a stranger chose.
//!
//! Server discovery is the part that OpenID needs: IP literals and explicit ports as they are, `.well-known` delegation,
//! else port 8448. SRV records are not looked up.
//!
//! Source: Server-Server API, "OpenID" and "Resolving server names".

use std::net::{IpAddr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use serde_json::Value;
use tokio::sync::OnceCell;
use voice_protocol::methods::OpenIdToken;

use super::client::{self, Client, Fault};
use crate::settings::Settings;

const FEDERATION_PORT: u16 = 8448;
const WELL_KNOWN_BYTES_MAX: usize = 50 * 1024;
const USERINFO_BYTES_MAX: usize = 64 * 1024;
const SERVER_NAME_LEN_MAX: usize = 230;

/// Verifies OpenID tokens.
pub struct Verifier {
    /// Made when the first stranger comes: it holds the certificates of all authorities.
    http: OnceCell<reqwest::Client>,
    trusted_ca_pem: Option<Vec<u8>>,
    own_server_name: String,
    allow_private_addresses: bool,
}

/// Why a token proves nothing.
#[derive(Debug, thiserror::Error)]
pub enum Unproven {
    #[error("the server name is not valid")]
    BadServerName,
    #[error("the server's address is not allowed")]
    PrivateAddress,
    #[error("the token's server does not vouch for it")]
    Refused,
    #[error("the token's server cannot be asked now")]
    Unavailable(#[source] Fault),
}

impl Verifier {
    /// # Errors
    /// When a certificate of the settings cannot be read.
    pub fn new(settings: &Settings) -> anyhow::Result<Self> {
        drop(client::builder(settings.trusted_ca_pem.as_deref())?);
        Ok(Self {
            http: OnceCell::new(),
            trusted_ca_pem: settings.trusted_ca_pem.clone(),
            own_server_name: settings.server_name.clone(),
            allow_private_addresses: settings.allow_private_addresses,
        })
    }

    /// The user whom the token stands for.
    ///
    /// # Errors
    /// [`Unproven`]; the user id is only returned when it belongs to the server that was asked.
    pub async fn user_of(&self, token: &OpenIdToken, homeserver: &Client) -> Result<String, Unproven> {
        let server_name = token.matrix_server_name.as_str();
        let answer = if server_name == self.own_server_name {
            homeserver.openid_userinfo(&token.access_token).await
        } else {
            self.ask_stranger(server_name, &token.access_token).await?
        };
        let info: Value = answer.map_err(|fault| match fault {
            Fault::Refused { .. } | Fault::Nonsense => Unproven::Refused,
            other => Unproven::Unavailable(other),
        })?;
        let user_id = info["sub"].as_str().ok_or(Unproven::Refused)?;
        let belongs =
            user_id.starts_with('@') && user_id.split_once(':').is_some_and(|(_, server)| server == server_name);
        if belongs { Ok(user_id.to_owned()) } else { Err(Unproven::Refused) }
    }

    async fn ask_stranger(&self, server_name: &str, openid_token: &str) -> Result<Result<Value, Fault>, Unproven> {
        let authority = self.locate(server_name).await?;
        let mut url = url::Url::parse(&format!("https://{authority}/_matrix/federation/v1/openid/userinfo"))
            .map_err(|_| Unproven::BadServerName)?;
        url.query_pairs_mut().append_pair("access_token", openid_token);
        Ok(self.get(url, USERINFO_BYTES_MAX).await)
    }

    /// Host and port to talk to.
    async fn locate(&self, server_name: &str) -> Result<String, Unproven> {
        let name = ServerName::parse(server_name).ok_or(Unproven::BadServerName)?;
        self.permit(&name)?;
        if name.port.is_some() || name.ip.is_some() {
            return Ok(name.authority());
        }
        let well_known = url::Url::parse(&format!("https://{}/.well-known/matrix/server", name.host))
            .map_err(|_| Unproven::BadServerName)?;
        // No document, or a broken one: the server is where its name says.
        let Ok(document) = self.get(well_known, WELL_KNOWN_BYTES_MAX).await else { return Ok(name.authority()) };
        let delegated = document["m.server"].as_str().and_then(ServerName::parse);
        let place = delegated.unwrap_or(name);
        self.permit(&place)?;
        Ok(place.authority())
    }

    async fn get(&self, url: url::Url, bytes_max: usize) -> Result<Value, Fault> {
        let http = self.http.get_or_try_init(|| async { self.connect() }).await.map_err(Fault::Unreachable)?;
        let answer = http.get(url).send().await.map_err(|error| Fault::Unreachable(error.without_url()))?;
        client::read_answer(answer, bytes_max).await
    }

    fn connect(&self) -> reqwest::Result<reqwest::Client> {
        let mut builder = client::builder(self.trusted_ca_pem.as_deref())?;
        if !self.allow_private_addresses {
            builder = builder.dns_resolver(PublicOnly);
        }
        builder.build()
    }

    fn permit(&self, name: &ServerName<'_>) -> Result<(), Unproven> {
        match name.ip {
            Some(ip) if !self.allow_private_addresses && !is_public(ip) => Err(Unproven::PrivateAddress),
            _ => Ok(()),
        }
    }
}

/// A server name taken apart: `host[:port]`, where the host is a DNS name or an IP literal.
#[derive(Debug, PartialEq, Eq)]
struct ServerName<'a> {
    host: &'a str,
    ip: Option<IpAddr>,
    port: Option<u16>,
}

impl<'a> ServerName<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        if text.is_empty() || text.len() > SERVER_NAME_LEN_MAX {
            return None;
        }
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let end = rest.find(']')? + 2;
                let port = &text[end..];
                (&text[..end], if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
            }
            None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
        };
        let port = match port {
            None => None,
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => Some(digits.parse().ok()?),
            Some(_) => return None,
        };
        let literal = host.strip_prefix('[').map_or(host, |rest| rest.trim_end_matches(']'));
        let ip: Option<IpAddr> = literal.parse().ok();
        let is_dns_name = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
        (ip.is_some() || is_dns_name).then_some(Self { host, ip, port })
    }

    fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port.unwrap_or(FEDERATION_PORT))
    }
}

/// Name look-ups that keep only addresses of the public internet.
struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        let host = name.as_str().to_owned();
        Box::pin(async move {
            let found: Vec<SocketAddr> =
                tokio::net::lookup_host((host, 0)).await?.filter(|address| is_public(address.ip())).collect();
            if found.is_empty() {
                return Err("no public address".into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// Whether an address is one that a stranger may make us talk to.
fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            let shared = a == 100 && (64..128).contains(&b);
            let benchmark = a == 198 && (b == 18 || b == 19);
            let protocol = a == 192 && b == 0 && v4.octets()[2] == 0;
            !(v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_unspecified()
                || v4.is_broadcast()
                || v4.is_multicast()
                || v4.is_documentation()
                || shared
                || benchmark
                || protocol
                || a == 0
                || a >= 240)
        }
        IpAddr::V6(v6) => {
            let first = v6.segments()[0];
            let unique_local = first & 0xfe00 == 0xfc00;
            let link_local = first & 0xffc0 == 0xfe80;
            let documentation = first == 0x2001 && v6.segments()[1] == 0x0db8;
            // NAT64 and 6to4 lead to IPv4 addresses that were not looked at.
            let translated = first == 0x0064 || first == 0x2002;
            !(v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_multicast()
                || unique_local
                || link_local
                || documentation
                || translated)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_names_are_taken_apart_as_the_specification_says() {
        let authority = |text| ServerName::parse(text).map(|name| name.authority());

        assert_eq!(authority("example.org").as_deref(), Some("example.org:8448"));
        assert_eq!(authority("example.org:443").as_deref(), Some("example.org:443"));
        assert_eq!(authority("[2001:db8::1]:80").as_deref(), Some("[2001:db8::1]:80"));
        assert_eq!(authority("192.0.2.1").as_deref(), Some("192.0.2.1:8448"));
        for wrong in ["", "a b", "host:port", "host:99999", "a/b", "user@host", "[::1", "[nonsense]", "host:1:2"] {
            assert_eq!(authority(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn only_addresses_of_the_public_internet_are_public() {
        let public = ["1.1.1.1", "2606:4700::1111", "192.1.0.1"];
        let private = [
            "10.0.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "::1",
            "fe80::1",
            "fd00::1",
            "::ffff:127.0.0.1",
            "64:ff9b::7f00:1",
            "224.0.0.1",
            "255.255.255.255",
        ];

        assert!(public.iter().all(|ip| is_public(ip.parse().unwrap())));
        for ip in private {
            assert!(!is_public(ip.parse().unwrap()), "{ip}");
        }
    }
}
