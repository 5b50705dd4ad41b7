//! What one process runs: everything, or one role of it.
//!
//! The voice service gets what any application service gets: a registration and an HTTP address. In one process it shares the
//! homeserver's listener, nothing else.

mod voice;

use anyhow::Context as _;
use homeserver::{
    config::Config,
    start::{Homeserver, Sockets},
};
use tokio::signal::unix::{SignalKind, signal};

/// What this process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Homeserver and voice.
    Up,
    /// The homeserver.
    Homeserver,
    /// The voice service.
    Voice,
}

/// Run until told to stop (SIGTERM or SIGINT).
pub(crate) async fn run(config: &Config, role: Role) -> anyhow::Result<()> {
    make_data_dir(config)?;
    match role {
        Role::Up | Role::Homeserver => run_homeserver(config, role).await,
        Role::Voice => voice::run_alone(config).await,
    }
}

async fn run_homeserver(config: &Config, role: Role) -> anyhow::Result<()> {
    let sockets = Sockets::bind(config)?;
    let (client_address, federation_address) = (sockets.client_address, sockets.federation_address);
    let voice = if role == Role::Up && config.voice.enabled && config.voice.url.is_none() {
        Some(voice::start(config, client_address).await.context("the voice service cannot be started")?)
    } else {
        None
    };
    let beside = voice.as_ref().map(appservice_voice::Running::router);
    let homeserver = Homeserver::start(config, sockets, beside).await?;

    let url = config.public_url(client_address);
    eprintln!("VoiceChat serves {} at {url}", config.server.name);
    if let Some(address) = federation_address {
        eprintln!("Other servers reach it at {address} (TLS)");
    }
    if voice.is_some() {
        eprintln!("Try voice in a browser: {url}/voice/check");
    }

    told_to_stop().await?;
    tracing::info!("stopping");
    // Voice first: it clears call memberships through the homeserver.
    if let Some(voice) = voice {
        voice.stop().await;
    }
    homeserver.stop().await;
    Ok(())
}

/// Wait for SIGTERM or SIGINT.
async fn told_to_stop() -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// The data directory, for our eyes only when we make it.
fn make_data_dir(config: &Config) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    let dir = &config.server.data_dir;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("cannot make the data directory {}", dir.display()))
}
