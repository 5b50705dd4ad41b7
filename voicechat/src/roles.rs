//! What one process runs: everything, or one role of it.
//!
//! The voice service gets what any application service gets: a registration and an HTTP address. In one process it shares the
//! homeserver's listener, nothing else.

mod voice;

use std::net::SocketAddr;

use anyhow::Context as _;
use homeserver::{
    config::{Config, settings::local_url},
    start::{Beside, Homeserver, Sockets},
};
use tokio::signal::unix::{SignalKind, signal};

use crate::logging::tell;

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
    let has_voice_inside = role == Role::Up && config.voice.enabled && config.voice.url.is_none();
    let mut beside = Beside::default();
    let mut voice = None;
    if has_voice_inside {
        let running = voice::start(config, client_address).await?;
        beside.router = Some(running.router());
        beside.registrations.push(voice::registration(config, &local_url(client_address))?);
        voice = Some(running);
    } else if let Some(url) = config.voice.url.as_ref().filter(|_| config.voice.enabled) {
        beside.registrations.push(voice::registration(config, url)?);
    }
    let homeserver = Homeserver::start(config, sockets, beside).await?;
    greet(config, &homeserver, client_address, federation_address, has_voice_inside).await?;

    told_to_stop().await?;
    tracing::info!("stopping");
    // Voice first: it clears call memberships through the homeserver.
    if let Some(voice) = voice {
        voice.stop().await;
    }
    homeserver.stop().await;
    Ok(())
}

/// Say where we are, and to whom the server belongs while it belongs to nobody. On standard error, not in the log: the link is
/// a secret until it is used.
async fn greet(
    config: &Config,
    homeserver: &Homeserver,
    client_address: SocketAddr,
    federation_address: Option<SocketAddr>,
    has_voice: bool,
) -> anyhow::Result<()> {
    let url = config.public_url(client_address);
    tell(&format!("VoiceChat serves {} at {url}", config.server.name));
    if let Some(address) = federation_address {
        tell(&format!("Other servers reach it at {address} (TLS)"));
    }
    if has_voice {
        tell(&format!("Try voice in a browser: {url}/voice/check"));
    }
    if let Some(token) = homeserver.services().welcome.token().await? {
        tell("\nNobody administers this server yet. Open this link once to become its administrator:\n");
        tell(&format!("    {url}/voicechat/welcome?token={token}\n"));
    }
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
