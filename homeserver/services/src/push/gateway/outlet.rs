//! The way out to push gateways: whose addresses come from users, so nothing inside our own network may be reached by them.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt as _, future::BoxFuture};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use serde_json::Value;

use crate::{Error, Result};

/// Until a gateway has taken the connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Until a gateway has answered.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// The longest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Sends a notification to a gateway.
pub trait Outlet: fmt::Debug + Send + Sync {
    /// Post JSON; the status and the body of the answer.
    fn post<'a>(&'a self, url: &'a str, body: &'a Value) -> BoxFuture<'a, Result<(u16, Vec<u8>)>>;
}

/// How gateways are reached.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Whether gateways may stand on private addresses: for tests and closed networks.
    pub allow_private_addresses: bool,
}

/// Over HTTP.
#[derive(Debug, Clone)]
pub struct HttpOutlet {
    client: reqwest::Client,
    settings: Settings,
}

impl HttpOutlet {
    /// With a client of its own: no redirects, no private addresses, no endless answers.
    ///
    /// # Errors
    /// [`Error::Internal`] when the machine offers no way to make one.
    pub fn new(settings: Settings) -> Result<Self> {
        // Whoever came first has installed one; all of ours are the same.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(ANSWER_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .dns_resolver(Arc::new(Resolver { settings: settings.clone() }))
            .no_proxy()
            .build()
            .map_err(Error::internal)?;
        Ok(Self { client, settings })
    }

    async fn send(&self, url: &str, body: &Value) -> Result<(u16, Vec<u8>)> {
        let url = url::Url::parse(url).map_err(|error| Error::InvalidParam(error.to_string()))?;
        // A literal address does not come past the resolver.
        let literal = match url.host() {
            Some(url::Host::Ipv4(ip)) => Some(IpAddr::V4(ip)),
            Some(url::Host::Ipv6(ip)) => Some(IpAddr::V6(ip)),
            _ => None,
        };
        if literal.is_some_and(|ip| !is_allowed(ip, &self.settings)) {
            return Err(Error::forbidden("a push gateway on a private address"));
        }
        let response = self.client.post(url).json(body).send().await.map_err(unanswered)?;
        let status = response.status().as_u16();
        let mut answer = Vec::new();
        let mut chunks = response.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(unanswered)?;
            if answer.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(Error::TooLarge("the answer of a push gateway".to_owned()));
            }
            answer.extend_from_slice(&chunk);
        }
        Ok((status, answer))
    }
}

fn unanswered(error: reqwest::Error) -> Error {
    // Without the address: push keys may stand in it.
    Error::internal(error.without_url())
}

impl Outlet for HttpOutlet {
    fn post<'a>(&'a self, url: &'a str, body: &'a Value) -> BoxFuture<'a, Result<(u16, Vec<u8>)>> {
        Box::pin(self.send(url, body))
    }
}

#[derive(Debug)]
struct Resolver {
    settings: Settings,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let settings = self.settings.clone();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed: Vec<SocketAddr> = found.filter(|address| is_allowed(address.ip(), &settings)).collect();
            if allowed.is_empty() {
                return Err("no public address".into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

fn is_allowed(ip: IpAddr, settings: &Settings) -> bool {
    settings.allow_private_addresses || is_public(ip)
}

/// True for addresses of the internet at large.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            !(ip.is_private()
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_unspecified()
                || ip.is_multicast()
                || ip.is_broadcast()
                || ip.is_documentation()
                || a == 0
                || a >= 240
                || (a == 100 && (64..128).contains(&b))
                || (a == 198 && (18..20).contains(&b))
                || ip.octets()[..3] == [192, 0, 0])
        }
        IpAddr::V6(ip) => {
            if let Some(ip) = ip.to_ipv4_mapped() {
                return is_public(IpAddr::V4(ip));
            }
            // Only 2000::/3 is given out; of it, documentation, 6to4 and Teredo lead elsewhere.
            let [a, b, ..] = ip.segments();
            (a & 0xe000) == 0x2000 && !(a == 0x2001 && (b == 0x0db8 || b == 0)) && a != 0x2002
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_public;

    #[test]
    fn only_addresses_of_the_internet_at_large_are_public() {
        for address in ["1.1.1.1", "100.63.255.255", "198.20.0.1", "2606:4700::1111"] {
            assert!(is_public(address.parse().unwrap()), "{address} is public");
        }
        for address in [
            "127.0.0.1",
            "10.1.2.3",
            "192.168.0.1",
            "172.16.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "198.18.0.1",
            "::1",
            "fe80::1",
            "fd00::1",
            "::ffff:10.0.0.1",
            "2001:db8::1",
            "2002:a00:1::",
            "64:ff9b::a00:1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address} is not public");
        }
    }
}
