//! From a configuration to a server that answers, and back to rest.

use std::net::{SocketAddr, TcpListener};

use anyhow::Context as _;
use axum::Router;
use services::{Context, Services, appservices::registry::Hidden};

use crate::{
    app,
    config::Config,
    serve::{self, Listener, Stopping, tls},
};

/// The sockets of a server, bound before anything else so that whoever is started beside it knows where it will be.
#[derive(Debug)]
pub struct Sockets {
    client: TcpListener,
    federation: Option<TcpListener>,
    /// Where clients reach us.
    pub client_address: SocketAddr,
    /// Where other servers reach us.
    pub federation_address: Option<SocketAddr>,
}

impl Sockets {
    /// Bind what the configuration asks for.
    ///
    /// # Errors
    /// When an address is taken or not ours.
    pub fn bind(config: &Config) -> anyhow::Result<Self> {
        let client = serve::bind(config.listen.client)?;
        let federation = config.federation_address().map(serve::bind).transpose()?;
        let client_address = client.local_addr()?;
        let federation_address = federation.as_ref().map(TcpListener::local_addr).transpose()?;
        Ok(Self { client, federation, client_address, federation_address })
    }
}

/// What runs in the same process as the homeserver and shares its client listener: application services like any other.
#[derive(Debug, Default)]
pub struct Beside {
    /// Their paths, which must not meet ours.
    pub router: Option<Router>,
    /// Their registrations.
    pub registrations: Vec<Hidden>,
}

/// A server at work.
#[derive(Debug)]
pub struct Homeserver {
    cx: Context,
    services: Services,
    listeners: Vec<Listener>,
    stopping: Stopping,
}

impl Homeserver {
    /// Open the database, start the services, listen.
    ///
    /// # Errors
    /// What the database, the files or the sockets say, in words for the operator.
    pub async fn start(config: &Config, sockets: Sockets, beside: Beside) -> anyhow::Result<Self> {
        let tls = match &sockets.federation {
            Some(_) => Some(tls::load(&config.tls_files()?).await?),
            None => None,
        };
        let settings = config.services(sockets.client_address, beside.registrations)?;
        let (cx, services) = open(config, settings).await?;
        let router = app(services.clone());
        let (settings, stopping) = (config.listeners(), Stopping::default());
        let mut listeners = Vec::new();
        if let Some(socket) = sockets.federation {
            listeners.push(serve::serve(socket, tls, router.clone(), &settings, &stopping)?);
        }
        let router = match beside.router {
            Some(beside) => router.merge(beside),
            None => router,
        };
        listeners.push(serve::serve(sockets.client, None, router, &settings, &stopping)?);
        Ok(Self { cx, services, listeners, stopping })
    }

    /// The services alone, for a command that administers the server, whether or not it runs: nobody is told anything.
    ///
    /// # Errors
    /// As [`Homeserver::start`].
    pub async fn at_rest(config: &Config) -> anyhow::Result<Self> {
        let mut settings = config.services(config.listen.client, Vec::new())?;
        settings.appservices.registry = services::appservices::registry::Settings::default();
        settings.federation.is_enabled = false;
        let (cx, services) = open(config, settings).await?;
        Ok(Self { cx, services, listeners: Vec::new(), stopping: Stopping::default() })
    }

    /// The services, for what the binary does beside serving.
    #[must_use]
    pub fn services(&self) -> &Services {
        &self.services
    }

    /// Let nobody new in, end what is under way, close the database.
    pub async fn stop(self) {
        self.stopping.begin();
        futures_util::future::join_all(self.listeners.into_iter().map(Listener::stop)).await;
        self.services.appservices.stop().await;
        drop(self.services);
        self.cx.store.close().await;
    }
}

async fn open(config: &Config, settings: services::Settings) -> anyhow::Result<(Context, Services)> {
    let cx = Context::open(config.context()?).await.context("the database or Valkey cannot be used")?;
    let services = Services::start(cx.clone(), settings).await.context("the services cannot be started")?;
    Ok((cx, services))
}
