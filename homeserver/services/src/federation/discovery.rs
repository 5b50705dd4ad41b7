//! Where a server of a given name is reached: address, port, `Host` header and the name its certificate must bear.
//!
//! [`steps`] is the specification's decision, pure; [`Discovery`] carries it out with well-known, SRV and address look-ups and
//! remembers the answers. Source: Server-Server API, "Resolving server names".

use std::{net::IpAddr, sync::Arc, time::Duration};

use hickory_resolver::{TokioResolver, proto::rr::RData};
use quick_cache::sync::Cache;
use ruma::{OwnedServerName, ServerName};
use serde::Deserialize;

use crate::{clock::Clock, outgoing::Outgoing};

/// The port of servers that name none.
const PORT: u16 = 8448;
/// Servers remembered.
const SERVERS_MAX: usize = 10_000;
/// How long a route stays as found, unless its well-known ends earlier.
const ROUTE_LIFETIME_MS: u64 = 5 * 60 * 1000;
/// How long a well-known answer without a word on it is kept, and the bounds of what such words may ask.
const WELL_KNOWN_LIFETIME: Lifetime =
    Lifetime { least_ms: 5 * 60 * 1000, usual_ms: 24 * 3_600_000, most_ms: 48 * 3_600_000 };
/// How long a failed well-known look-up is believed: the first time, doubled each time after, at most.
const WELL_KNOWN_ERROR_MS: (u64, u64) = (60 * 1000, 3_600_000);
/// Body of a well-known answer.
const WELL_KNOWN_BYTES_MAX: usize = 50 << 10;
/// Redirects followed to a well-known.
const REDIRECTS_MAX: usize = 5;
/// Until a well-known has been answered, redirects included.
const WELL_KNOWN_TIMEOUT: Duration = Duration::from_secs(10);
/// Until a look-up of SRV records is given up.
const SRV_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy)]
struct Lifetime {
    least_ms: u64,
    usual_ms: u64,
    most_ms: u64,
}

/// How to reach a server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Route {
    /// The `Host` header.
    pub authority: String,
    /// The host the certificate must name; brackets around IPv6 addresses.
    pub host: String,
    /// The port to connect to.
    pub port: u16,
    /// The host whose addresses to connect to, when it is not `host` (SRV).
    pub target: Option<String>,
}

impl Route {
    /// Where requests go: `https://HOST:PORT`.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("https://{}:{}", self.host, self.port)
    }
}

/// What a name alone says about the way to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Steps {
    /// Connect right away.
    Direct(Route),
    /// Ask well-known (the first time), then SRV, then fall back on port 8448.
    Ask,
}

/// What `server` says by itself: an address or an explicit port settles the matter.
#[must_use]
pub fn steps(server: &ServerName) -> Steps {
    if server.is_ip_literal() || server.port().is_some() {
        return Steps::Direct(Route {
            authority: server.as_str().to_owned(),
            host: server.host().to_owned(),
            port: server.port().unwrap_or(PORT),
            target: None,
        });
    }
    Steps::Ask
}

#[derive(Debug, Clone)]
struct WellKnown {
    delegated: Option<OwnedServerName>,
    until_ms: u64,
    /// Failures in a row.
    fails: u32,
}

/// Finds servers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Discovery(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
    outgoing: Outgoing,
    http: reqwest::Client,
    dns: Option<TokioResolver>,
    routes: Cache<OwnedServerName, (Route, u64)>,
    well_known: Cache<String, WellKnown>,
}

impl Discovery {
    /// Over connections of this policy.
    ///
    /// # Errors
    /// When no HTTP client can be made, in words.
    pub fn new(clock: Clock, outgoing: Outgoing) -> Result<Self, String> {
        let http = outgoing.client().timeout(WELL_KNOWN_TIMEOUT).build().map_err(|error| error.to_string())?;
        let dns = TokioResolver::builder_tokio().and_then(|builder| builder.build());
        let dns = dns.inspect_err(|error| tracing::warn!(%error, "no SRV records can be looked up")).ok();
        Ok(Self(Arc::new(Inner {
            clock,
            outgoing,
            http,
            dns,
            routes: Cache::new(SERVERS_MAX),
            well_known: Cache::new(SERVERS_MAX),
        })))
    }

    /// The way to `server`. Never fails: a name that leads nowhere fails when connecting.
    pub async fn route(&self, server: &ServerName) -> Route {
        if let Steps::Direct(route) = steps(server) {
            return route;
        }
        let now = self.0.clock.now_ms();
        if let Some((route, until)) = self.0.routes.get(server)
            && now < until
        {
            return route;
        }
        let well_known = self.well_known(server.host()).await;
        let route = match &well_known.delegated {
            None => self.by_records(server.host()).await,
            Some(delegated) => match steps(delegated) {
                Steps::Direct(route) => route,
                Steps::Ask => self.by_records(delegated.host()).await,
            },
        };
        let until = (now + ROUTE_LIFETIME_MS).min(well_known.until_ms);
        self.0.routes.insert(server.to_owned(), (route.clone(), until));
        route
    }

    /// Forget the way to a server that could not be reached.
    pub fn forget(&self, server: &ServerName) {
        self.0.routes.remove(server);
    }

    /// Steps 3.3 to 3.5 and 4 to 6: SRV, else port 8448.
    async fn by_records(&self, host: &str) -> Route {
        let route = |port, target| Route { authority: host.to_owned(), host: host.to_owned(), port, target };
        for service in ["_matrix-fed", "_matrix"] {
            if let Some((target, port)) = self.srv(&format!("{service}._tcp.{host}.")).await {
                return route(port, Some(target));
            }
        }
        route(PORT, None)
    }

    /// The best record of a service: lowest priority, then highest weight.
    async fn srv(&self, name: &str) -> Option<(String, u16)> {
        let lookup = tokio::time::timeout(SRV_TIMEOUT, self.0.dns.as_ref()?.srv_lookup(name)).await.ok()?.ok()?;
        let records = lookup.answers().iter().filter_map(|record| match &record.data {
            RData::SRV(srv) => Some((srv.priority, u16::MAX - srv.weight, srv.target.to_ascii(), srv.port)),
            _ => None,
        });
        let (_, _, target, port) = records.min()?;
        let target = target.trim_end_matches('.').to_owned();
        // A lone dot says: this service is not offered.
        (!target.is_empty()).then_some((target, port))
    }

    async fn well_known(&self, host: &str) -> WellKnown {
        let now = self.0.clock.now_ms();
        let before = self.0.well_known.get(host);
        if let Some(known) = &before
            && now < known.until_ms
        {
            return known.clone();
        }
        let asked = tokio::time::timeout(WELL_KNOWN_TIMEOUT, self.ask_well_known(host)).await;
        let known = match asked.unwrap_or_else(|_| Err("no answer in time".to_owned())) {
            Ok((delegated, lifetime_ms)) => {
                WellKnown { delegated: Some(delegated), until_ms: now + lifetime_ms, fails: 0 }
            }
            Err(problem) => {
                tracing::debug!(host, problem, "no well-known");
                let fails = before.map_or(0, |known| known.fails);
                let (first_ms, most_ms) = WELL_KNOWN_ERROR_MS;
                let lifetime_ms = (first_ms << fails.min(16)).min(most_ms);
                WellKnown { delegated: None, until_ms: now + lifetime_ms, fails: fails.saturating_add(1) }
            }
        };
        self.0.well_known.insert(host.to_owned(), known.clone());
        known
    }

    async fn ask_well_known(&self, host: &str) -> Result<(OwnedServerName, u64), String> {
        #[derive(Deserialize)]
        struct Body {
            #[serde(rename = "m.server")]
            server: OwnedServerName,
        }
        let mut url = url::Url::parse(&format!("https://{host}/.well-known/matrix/server")).map_err(words)?;
        for _ in 0..=REDIRECTS_MAX {
            if url.scheme() != "https" || !self.0.outgoing.may_ask(&url) {
                return Err(format!("redirected to {url}"));
            }
            let mut response = self.0.http.get(url.clone()).send().await.map_err(words)?;
            if response.status().is_redirection() {
                let to = response.headers().get("location").and_then(|to| to.to_str().ok()).unwrap_or_default();
                url = url.join(to).map_err(words)?;
                continue;
            }
            if response.status() != 200 {
                return Err(format!("status {}", response.status()));
            }
            let lifetime_ms = lifetime_ms(response.headers());
            let mut body = Vec::new();
            while let Some(chunk) = response.chunk().await.map_err(words)? {
                body.extend_from_slice(&chunk);
                if body.len() > WELL_KNOWN_BYTES_MAX {
                    return Err("body too large".to_owned());
                }
            }
            let body: Body = serde_json::from_slice(&body).map_err(words)?;
            return Ok((body.server, lifetime_ms));
        }
        Err("too many redirects".to_owned())
    }
}

fn words(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// How long an answer with these headers is kept.
fn lifetime_ms(headers: &reqwest::header::HeaderMap) -> u64 {
    let Lifetime { least_ms, usual_ms, most_ms } = WELL_KNOWN_LIFETIME;
    let mut asked_ms = usual_ms;
    for header in headers.get_all("cache-control") {
        for word in header.to_str().unwrap_or_default().split(',') {
            let word = word.trim().to_ascii_lowercase();
            if word == "no-store" || word == "no-cache" {
                asked_ms = 0;
            } else if let Some(seconds) = word.strip_prefix("max-age=").and_then(|s| s.parse::<u64>().ok()) {
                asked_ms = seconds.saturating_mul(1000);
            }
        }
    }
    asked_ms.clamp(least_ms, most_ms)
}

/// The address a route's host is, if it is one.
#[must_use]
pub fn literal(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

#[cfg(test)]
mod tests {
    use ruma::server_name;

    use super::*;

    fn direct(authority: &str, host: &str, port: u16) -> Steps {
        Steps::Direct(Route { authority: authority.into(), host: host.into(), port, target: None })
    }

    /// Steps 1 and 2, and the same two for delegated names (3.1 and 3.2).
    #[test]
    fn addresses_and_explicit_ports_need_no_look_up() {
        let cases = [
            ("1.2.3.4", direct("1.2.3.4", "1.2.3.4", 8448)),
            ("1.2.3.4:80", direct("1.2.3.4:80", "1.2.3.4", 80)),
            ("[2001:db8::1]", direct("[2001:db8::1]", "[2001:db8::1]", 8448)),
            ("[2001:db8::1]:443", direct("[2001:db8::1]:443", "[2001:db8::1]", 443)),
            ("example.org:8449", direct("example.org:8449", "example.org", 8449)),
            ("example.org", Steps::Ask),
        ];
        for (name, expected) in cases {
            assert_eq!(steps(<&ServerName>::try_from(name).unwrap()), expected, "{name}");
        }
        assert_eq!(literal("[::1]"), Some("::1".parse().unwrap()));
    }

    #[test]
    fn the_lifetime_of_a_well_known_is_asked_for_within_bounds() {
        let lifetime = |value: &str| {
            let mut headers = reqwest::header::HeaderMap::new();
            headers.insert("cache-control", value.parse().unwrap());
            lifetime_ms(&headers) / 1000
        };
        assert_eq!(lifetime_ms(&reqwest::header::HeaderMap::new()) / 1000, 86_400);
        assert_eq!(lifetime("public, max-age=7200"), 7_200);
        assert_eq!(lifetime("max-age=1"), 300);
        assert_eq!(lifetime("no-store"), 300);
        assert_eq!(lifetime("max-age=99999999999999999"), 172_800);
        assert_eq!(lifetime("max-age=-1"), 86_400);
    }

    #[tokio::test]
    async fn without_well_known_and_records_the_usual_port_is_taken() {
        let outgoing = Outgoing::new(&crate::outgoing::Settings::default()).unwrap();
        let discovery = Discovery::new(Clock::fixed(1), outgoing).unwrap();

        let route = discovery.route(server_name!("nobody.invalid")).await;

        assert_eq!(route.base_url(), "https://nobody.invalid:8448");
        assert_eq!(route.authority, "nobody.invalid");
    }
}
