//! Listeners: from a bound socket to the router, and the limits every request passes on the way.
//!
//! Two of them: HTTP (1.1 and 2 without TLS) for clients and application services, HTTPS for other servers. What a request meets,
//! outermost first: connection limit, head limits ([`connection`]), log line, CORS, address behind proxies, panic → 500,
//! deadline, compression, then the router. Nothing here knows an endpoint.
//!
//! Stopping: nobody new is let in; what is under way has [`FINISH_WITHIN`] to end, then is answered with 503 (long polls are
//! the usual case; clients ask again), and connections are closed.

pub mod connection;
mod layers;
mod proxies;
pub mod tls;

use std::{net::SocketAddr, time::Duration};

use anyhow::Context as _;
use axum::Router;
use axum_server::{Handle, tls_rustls::RustlsConfig};
use tokio::{sync::watch, task::JoinHandle};

pub use proxies::{Network, TrustedProxies};

use crate::routes::limits;

/// How long requests under way may go on once the server stops.
pub const FINISH_WITHIN: Duration = Duration::from_secs(2);
/// How long answers may take to drain after that.
const DRAIN_WITHIN: Duration = Duration::from_secs(5);

/// Limits and trust of a listener.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: TrustedProxies,
    /// Connections served at once; more are closed at once.
    pub connections_max: usize,
    /// Until the head of a request has arrived; also how long a connection may idle between requests.
    pub header_timeout: Duration,
    /// Longest pause within the body of a request.
    pub body_pause_max: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            trusted_proxies: TrustedProxies::default(),
            connections_max: limits::CONNECTIONS_MAX,
            header_timeout: limits::HEADER_TIMEOUT,
            body_pause_max: limits::BODY_PAUSE_MAX,
        }
    }
}

/// Tells everybody that the server stops. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Stopping(watch::Sender<bool>);

impl Default for Stopping {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Stopping {
    /// Say so.
    pub fn begin(&self) {
        self.0.send_replace(true);
    }

    /// Wait until somebody says so.
    pub async fn begun(&self) {
        // The sender lives in `self`, so the channel cannot close.
        let _ = self.0.subscribe().wait_for(|stopping| *stopping).await;
    }
}

/// A listener at work.
#[derive(Debug)]
pub struct Listener {
    /// Where it listens.
    pub address: SocketAddr,
    handle: Handle<SocketAddr>,
    task: JoinHandle<std::io::Result<()>>,
}

/// Bind a socket; port 0 takes a free one.
///
/// # Errors
/// When the address is taken or not ours.
pub fn bind(address: SocketAddr) -> anyhow::Result<std::net::TcpListener> {
    let socket = std::net::TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Serve `router` on a bound socket, over TLS when `tls` is given.
///
/// # Errors
/// When the socket is broken.
pub fn serve(
    socket: std::net::TcpListener,
    tls: Option<RustlsConfig>,
    router: Router,
    settings: &Settings,
    stopping: &Stopping,
) -> anyhow::Result<Listener> {
    let address = socket.local_addr()?;
    let router = layers::around(router, settings, stopping);
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    let handle = Handle::new();
    let counted = connection::Counted::new(settings.connections_max);
    let mut server = axum_server::from_tcp(socket)?.handle(handle.clone());
    connection::limit(server.http_builder(), settings);
    let task = match tls {
        None => tokio::spawn(server.acceptor(counted).serve(service)),
        Some(tls) => {
            let acceptor = axum_server::tls_rustls::RustlsAcceptor::new(tls)
                .handshake_timeout(settings.header_timeout)
                .acceptor(counted);
            tokio::spawn(server.acceptor(acceptor).serve(service))
        }
    };
    Ok(Listener { address, handle, task })
}

impl Listener {
    /// Stop listening, and wait until what is under way has ended.
    pub async fn stop(self) {
        self.handle.graceful_shutdown(Some(FINISH_WITHIN + DRAIN_WITHIN));
        if let Ok(Err(error)) = self.task.await {
            tracing::warn!(%error, address = %self.address, "a listener ended badly");
        }
    }
}
