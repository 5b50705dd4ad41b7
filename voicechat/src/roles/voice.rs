//! The voice service: its settings from the configuration, its tokens, and running it alone.

use std::net::SocketAddr;

use anyhow::Context as _;
use appservice_voice::{Running, Settings, sfu::Ports};
use homeserver::{
    config::{Config, settings::local_url, value::Secret},
    serve::{self, Stopping, tls::write_private},
};
use rand::{Rng as _, distr::Alphanumeric};
use serde_json::{Value, json};
use services::appservices::registry::Hidden;

/// Letters of a token made here: 5.95 bits each.
const TOKEN_LEN: usize = 43;
/// Where tokens made here are kept, in the data directory.
const TOKENS_FILE: &str = "voice-tokens.json";

/// Start it for a homeserver that will answer at `client_address`.
pub(super) async fn start(config: &Config, client_address: SocketAddr) -> anyhow::Result<Running> {
    let homeserver_url = local_url(client_address);
    start_with(config, settings(config, homeserver_url, config.public_url(client_address))?).await
}

async fn start_with(config: &Config, settings: Settings) -> anyhow::Result<Running> {
    let (first, last) = (config.voice.udp_port_first, config.voice.udp_port_last);
    appservice_voice::start(settings).await.with_context(|| {
        format!("the voice service cannot be started (voice.udp_port_first {first}, udp_port_last {last})")
    })
}

/// Run it alone, on its own listener, until told to stop.
pub(super) async fn run_alone(config: &Config) -> anyhow::Result<()> {
    let homeserver_url =
        config.voice.homeserver_url.clone().context("voice.homeserver_url must say where the homeserver is")?;
    let socket = serve::bind(config.voice.listen)?;
    let address = socket.local_addr()?;
    let public_url = config.voice.url.clone().unwrap_or_else(|| local_url(address));
    let voice = start_with(config, settings(config, homeserver_url, public_url)?).await?;
    let stopping = Stopping::default();
    let listener = serve::serve(socket, None, voice.router(), &config.listeners(), &stopping)?;
    crate::logging::tell(&format!("VoiceChat's voice service for {} is at {}", config.server.name, local_url(address)));

    super::told_to_stop().await?;
    voice.stop().await;
    stopping.begin();
    listener.stop().await;
    Ok(())
}

fn settings(config: &Config, homeserver_url: String, public_url: String) -> anyhow::Result<Settings> {
    let (as_token, hs_token) = tokens(config)?;
    let voice = &config.voice;
    let authorities = config.trusted_authorities()?;
    let default = Settings::default();
    Ok(Settings {
        homeserver_url,
        server_name: config.server.name.clone(),
        as_token: as_token.expose().to_owned(),
        hs_token: hs_token.expose().to_owned(),
        public_url: voice.public_url.clone().unwrap_or(public_url),
        data_dir: config.server.data_dir.clone(),
        media: Ports {
            bind: voice.udp_bind,
            first: voice.udp_port_first,
            last: voice.udp_port_last,
            advertised: voice.udp_advertised.clone(),
            ..default.media
        },
        trusted_ca_pem: (!authorities.is_empty()).then(|| authorities.join(&b'\n')),
        allow_private_addresses: config.federation.allow_private_addresses,
        ..default
    })
}

/// The registration by which the homeserver knows the service, which it reaches at `url`.
pub(super) fn registration(config: &Config, url: &str) -> anyhow::Result<Hidden> {
    let settings = settings(config, String::new(), String::new())?;
    Ok(Hidden(serde_json::to_string(&appservice_voice::registration(&settings, url))?))
}

/// The tokens of the configuration, or those made at the first start and kept in the data directory: (as, hs).
fn tokens(config: &Config) -> anyhow::Result<(Secret, Secret)> {
    if let (Some(as_token), Some(hs_token)) = (&config.voice.as_token, &config.voice.hs_token) {
        return Ok((as_token.clone(), hs_token.clone()));
    }
    let path = config.server.data_dir.join(TOKENS_FILE);
    if !path.exists() {
        let fresh = || rand::rng().sample_iter(Alphanumeric).take(TOKEN_LEN).map(char::from).collect::<String>();
        let document = json!({ "as_token": fresh(), "hs_token": fresh() });
        write_private(&path, document.to_string().as_bytes())?;
    }
    let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let document: Value = serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))?;
    let token = |key: &str| document.get(key).and_then(Value::as_str).map(Secret::new);
    token("as_token").zip(token("hs_token")).with_context(|| format!("{} lacks a token", path.display()))
}
