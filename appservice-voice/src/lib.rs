//! Voice rooms: an SFU that speaks to the homeserver as an ordinary application service.
//!
//! ```text
//! signalling (JSON-RPC over WebSocket) ─┐              ┌─ sfu (UDP, one thread per shard)
//!                                       ├─ switchboard ┤
//! matrix (transactions, client) ────────┘      │       └─ matrix::membership (state events out)
//!                                            room (pure: who is in, who hears whom)
//! ```
//!
//! This is a library: [`start`] brings up media and background work, [`Running::router`] has every HTTP route, and
//! whoever calls decides on which listener they are served. Protocol: `spec/voice.md`.

mod check;
mod clock;
pub mod matrix;
mod rate;
pub mod registration;
pub mod room;
pub mod settings;
pub mod sfu;
pub mod signalling;
mod switchboard;

use std::{sync::Arc, time::Duration};

use axum::{Json, Router, extract::State, routing::get};
use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{MissedTickBehavior, interval, timeout},
};

use matrix::{client::Client, membership::Memberships, openid::Verifier, transactions};
use sfu::{HAPPENINGS_MAX, Sfu};
use signalling::ws;
use switchboard::Switchboard;

pub use registration::registration;
pub use settings::Settings;

/// How often dead connections are looked for.
const TEND_INTERVAL: Duration = Duration::from_secs(1);
/// How long [`Running::stop`] waits for the homeserver to take the last memberships.
const STOP_MAX: Duration = Duration::from_secs(10);

/// The running service.
pub struct Running {
    switchboard: Arc<Switchboard>,
    memberships: Arc<Memberships>,
    membership_work: JoinHandle<()>,
    attendants: Vec<JoinHandle<()>>,
    settings: Settings,
}

/// Start the service. The homeserver need not answer yet: what is asked of it is asked again until it does.
///
/// # Errors
/// When UDP ports cannot be bound, the data folder cannot be used, or TLS cannot be set up.
pub async fn start(settings: Settings) -> anyhow::Result<Running> {
    anyhow::ensure!(
        !settings.as_token.is_empty() && !settings.hs_token.is_empty(),
        "as_token and hs_token must not be empty"
    );
    // Whoever runs us may have chosen a provider already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let homeserver = Arc::new(Client::new(&settings)?);
    let verifier = Verifier::new(&settings)?;
    let memberships = Memberships::open(&settings.data_dir, &settings.public_url)?;
    let (control, mut happenings) = mpsc::channel(HAPPENINGS_MAX);
    let sfu = Sfu::start(&settings.media, &control)?;
    tracing::info!(ports = ?sfu.ports().collect::<Vec<_>>(), "voice listens for media");

    let switchboard = Arc::new(Switchboard::new(
        sfu,
        homeserver.clone(),
        verifier,
        memberships.clone(),
        settings.server_name.clone(),
    ));
    let membership_work = tokio::spawn(memberships.clone().work(homeserver));
    let listener = tokio::spawn({
        let switchboard = switchboard.clone();
        async move {
            while let Some(happening) = happenings.recv().await {
                switchboard.happened(happening);
            }
        }
    });
    let tender = tokio::spawn({
        let switchboard = switchboard.clone();
        async move {
            let mut tick = interval(TEND_INTERVAL);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                switchboard.tend();
            }
        }
    });
    Ok(Running { switchboard, memberships, membership_work, attendants: vec![listener, tender], settings })
}

impl Running {
    /// Every HTTP route of the service: the WebSocket, the check page, health and the application service API.
    ///
    /// To be served with `ConnectInfo<SocketAddr>` that names the client, also behind a proxy: limits hold for each address.
    pub fn router(&self) -> Router {
        let own_user_id = format!("@{}:{}", self.settings.sender_localpart, self.settings.server_name);
        Router::new()
            .route("/voice/health", get(health))
            .with_state(self.switchboard.clone())
            .merge(check::routes())
            .merge(ws::routes(self.switchboard.clone()))
            .merge(transactions::routes(self.switchboard.clone(), &self.settings.hs_token, &own_user_id))
    }

    /// The UDP ports in use, shard by shard.
    pub fn udp_ports(&self) -> Vec<u16> {
        self.switchboard.sfu().ports().collect()
    }

    /// Tell everyone, clear their memberships, stop the media threads. The homeserver should still be up.
    pub async fn stop(self) {
        self.switchboard.stop();
        self.memberships.close();
        if timeout(STOP_MAX, self.membership_work).await.is_err() {
            tracing::warn!("some call memberships are left to the next start to clear");
        }
        for attendant in &self.attendants {
            attendant.abort();
        }
        let switchboard = self.switchboard;
        if tokio::task::spawn_blocking(move || switchboard.sfu().stop()).await.is_err() {
            tracing::error!("the media threads did not stop as they should");
        }
    }
}

async fn health(State(switchboard): State<Arc<Switchboard>>) -> Json<Value> {
    let (rooms, participants) = switchboard.occupancy();
    Json(json!({"status": "ok", "rooms": rooms, "participants": participants}))
}
