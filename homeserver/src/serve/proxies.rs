//! Whose word on a client's address is taken.

use std::net::{IpAddr, SocketAddr};

use axum::{
    extract::{ConnectInfo, Request},
    http::HeaderMap,
};

/// The header in which proxies say for whom they ask.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// A range of IP addresses, `192.0.2.0/24`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix_bits: u8,
}

impl Network {
    /// From its text; `None` when it is neither an address nor a network.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().ok()?;
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits = prefix.map_or(Some(bits_max), |prefix| prefix.parse().ok())?;
        (prefix_bits <= bits_max).then_some(Self { address, prefix_bits })
    }

    /// True when `ip` is in it.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        let same = |a: u128, b: u128, bits: u32| {
            let left = bits - u32::from(self.prefix_bits);
            a.checked_shr(left).unwrap_or(0) == b.checked_shr(left).unwrap_or(0)
        };
        match (self.address, ip.to_canonical()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => same(u32::from(a).into(), u32::from(b).into(), 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => same(a.into(), b.into(), 128),
            _ => false,
        }
    }
}

/// The networks of our own proxies.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies(pub Vec<Network>);

impl TrustedProxies {
    fn trusts(&self, ip: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(ip))
    }

    /// Where a request came from: the last hop that is not one of our proxies.
    fn origin(&self, connection: IpAddr, headers: &HeaderMap) -> IpAddr {
        if !self.trusts(connection) {
            return connection;
        }
        let hops = headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
        let hops: Vec<IpAddr> =
            hops.flat_map(|value| value.split(',')).filter_map(|hop| hop.trim().parse().ok()).collect();
        hops.iter().rev().copied().find(|hop| !self.trusts(*hop)).or(hops.first().copied()).unwrap_or(connection)
    }

    /// Put the true address in the place of the connection's, and take away what could say otherwise.
    pub(super) fn resolve(&self, request: &mut Request) {
        if let Some(ConnectInfo(address)) = request.extensions().get::<ConnectInfo<SocketAddr>>().copied() {
            let origin = self.origin(address.ip(), request.headers());
            request.extensions_mut().insert(ConnectInfo(SocketAddr::new(origin, address.port())));
        }
        request.headers_mut().remove(FORWARDED_FOR);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(networks: &[&str]) -> TrustedProxies {
        TrustedProxies(networks.iter().map(|text| Network::parse(text).unwrap()).collect())
    }

    fn headers(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(FORWARDED_FOR.parse().unwrap(), value.parse().unwrap())])
    }

    #[test]
    fn a_stranger_cannot_claim_another_address() {
        let proxies = proxies(&["10.0.0.0/8"]);

        let origin = proxies.origin("198.51.100.7".parse().unwrap(), &headers("203.0.113.1"));

        assert_eq!(origin, "198.51.100.7".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn the_last_hop_before_our_proxies_is_the_client() {
        let proxies = proxies(&["10.0.0.0/8", "::1"]);

        let origin = proxies.origin("10.1.2.3".parse().unwrap(), &headers("1.1.1.1, 203.0.113.9, 10.9.9.9"));

        assert_eq!(origin, "203.0.113.9".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn networks_end_where_their_prefix_says() {
        let network = Network::parse("192.0.2.128/25").unwrap();

        assert!(network.contains("192.0.2.255".parse().unwrap()));
        assert!(network.contains("::ffff:192.0.2.200".parse().unwrap()));
        assert!(!network.contains("192.0.2.127".parse().unwrap()));
        assert!(Network::parse("0.0.0.0/0").unwrap().contains("8.8.8.8".parse().unwrap()));
        assert_eq!(Network::parse("10.0.0.0/33"), None);
        assert_eq!(Network::parse("example.org"), None);
    }
}
