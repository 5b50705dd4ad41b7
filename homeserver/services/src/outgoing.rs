//! How this server connects to others over HTTP: whom it trusts, and where it refuses to go.
//!
//! One policy for all: certificates are checked against the machine's authorities and those of the configuration, and addresses
//! that are not public are refused unless the configuration allows them, so that nobody can make this server ask machines
//! behind its firewall. The check is on the addresses themselves, after names were resolved, so a name that points inside does
//! not get through. Addresses written into a URL bypass the resolver: whoever builds URLs asks [`Outgoing::may_reach`].
//!
//! Not here: what is asked for. Each service builds its own client from [`Outgoing::client`].

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};

use crate::{Error, Result};

/// Until a connection stands, its TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an unused connection is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Unused connections kept for each host.
const IDLE_CONNECTIONS_PER_HOST_MAX: usize = 4;
/// Longest silence inside a response.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// Whom to trust and where not to go.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Connect to loopback and private networks too. For tests and closed networks.
    pub allow_private_addresses: bool,
    /// Certificates of authorities to trust beside the machine's own, PEM.
    pub trusted_authorities: Vec<Vec<u8>>,
}

/// Makes HTTP clients that keep to the policy. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Outgoing {
    tls: ClientConfig,
    resolver: Resolver,
}

impl Outgoing {
    /// With these settings. Reads the certificates of all the machine's authorities, hundreds of files: once is enough.
    ///
    /// # Errors
    /// [`Error::Internal`] when a certificate of the settings cannot be read.
    pub fn new(settings: &Settings) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        let native = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(native.certs);
        for pem in &settings.trusted_authorities {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate
                    .map_err(|error| Error::internal(format_args!("a trusted authority cannot be read: {error}")))?;
                roots.add(certificate).map_err(Error::internal)?;
            }
        }
        if roots.is_empty() {
            tracing::warn!("no certificate authorities found: no other server can be reached over https");
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(Error::internal)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let resolver = Resolver { allow_private_addresses: settings.allow_private_addresses };
        Ok(Self { tls, resolver })
    }

    /// The same trust without the fence: for addresses that the operator wrote down.
    #[must_use]
    pub fn to_any_address(&self) -> Self {
        Self { tls: self.tls.clone(), resolver: Resolver { allow_private_addresses: true } }
    }

    /// A client to be finished by its user: no redirects, no proxy, HTTP/1.1, timeouts set.
    pub fn client(&self) -> reqwest::ClientBuilder {
        reqwest::Client::builder()
            .tls_backend_preconfigured(self.tls.clone())
            .dns_resolver(Arc::new(self.resolver.clone()))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .http1_only()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_PER_HOST_MAX)
            .user_agent(concat!("VoiceChat/", env!("CARGO_PKG_VERSION")))
    }

    /// Whether the policy lets us connect to this address.
    #[must_use]
    pub fn may_reach(&self, address: IpAddr) -> bool {
        self.resolver.may_reach(address)
    }

    /// Whether the host of a URL is a name, or an address the policy lets us connect to.
    #[must_use]
    pub fn may_ask(&self, url: &url::Url) -> bool {
        match url.host() {
            Some(url::Host::Ipv4(address)) => self.may_reach(address.into()),
            Some(url::Host::Ipv6(address)) => self.may_reach(address.into()),
            Some(url::Host::Domain(_)) => true,
            None => false,
        }
    }

    /// The addresses of a host that the policy lets us connect to.
    ///
    /// # Errors
    /// In words, when there are none.
    pub async fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
        self.resolver.addresses(host, port).await
    }
}

/// The machine's resolver, without what we must not reach.
#[derive(Debug, Clone)]
struct Resolver {
    allow_private_addresses: bool,
}

impl Resolver {
    fn may_reach(&self, address: IpAddr) -> bool {
        self.allow_private_addresses || is_public(address)
    }

    async fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
        let found = tokio::net::lookup_host((host, port)).await.map_err(|error| format!("{host}: {error}"))?;
        let (allowed, refused): (Vec<_>, Vec<_>) = found.partition(|address| self.may_reach(address.ip()));
        match (allowed.is_empty(), refused.is_empty()) {
            (false, _) => Ok(allowed),
            (true, true) => Err(format!("{host} has no address")),
            (true, false) => Err(format!("{host} has no public address")),
        }
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = self.clone();
        Box::pin(async move {
            let addresses = resolver.addresses(name.as_str(), 0).await?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// Whether an address belongs to the public internet.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_broadcast()
        || address.is_documentation()
        || address.is_multicast()
        || a == 0
        || a >= 240
        // Shared by carriers, protocol assignments, the old 6to4 relays, benchmarks.
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (18..20).contains(&b));
    !is_special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(inner) = inner_v4(address) {
        return is_public_v4(inner);
    }
    let [a, b, ..] = address.segments();
    // Global unicast is 2000::/3; of it, documentation and tunnels that could lead anywhere are left out.
    (a & 0xe000) == 0x2000 && !(a == 0x2001 && (b == 0xdb8 || b < 0x200)) && a != 0x3fff
}

/// The IPv4 address an IPv6 address stands for: mapped, translated or tunnelled.
fn inner_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let s = address.segments();
    let join = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match s {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(join(high, low)),
        [0x2002, high, low, ..] => Some(join(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_addresses_are_told_from_the_others() {
        let public = ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"];
        let others = [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "192.0.0.1",
            "203.0.113.5",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001:db8::1",
            "2001::1",
            "::127.0.0.1",
        ];
        for address in public {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
        for address in others {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[tokio::test]
    async fn a_name_that_points_inside_is_refused_unless_allowed() {
        let careful = Outgoing::new(&Settings::default()).unwrap();
        let open = Outgoing::new(&Settings { allow_private_addresses: true, ..Settings::default() }).unwrap();

        assert!(careful.addresses("localhost", 80).await.unwrap_err().contains("no public address"));
        assert!(open.addresses("localhost", 80).await.is_ok());
        assert!(!careful.may_ask(&"https://[::1]/".parse().unwrap()));
        assert!(!careful.may_ask(&"https://2130706433/".parse().unwrap()));
        assert!(careful.may_ask(&"https://example.org/".parse().unwrap()));
    }
}
