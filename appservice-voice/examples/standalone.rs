//! The voice service alone, beside any homeserver that knows application services. For tests and for trying it out.
//!
//! `standalone register FILE` writes the registration for the homeserver, `standalone serve` serves. Settings come from
//! the environment: `HOMESERVER_URL SERVER_NAME AS_TOKEN HS_TOKEN LISTEN DATA_DIR UDP_FIRST`.
#![expect(clippy::disallowed_methods, reason = "an example has no configuration file")]

use std::{env, fs, net::SocketAddr};

use anyhow::Context as _;
use appservice_voice::{Settings, registration, start};
use tokio::{net::TcpListener, signal::unix::SignalKind};

fn setting(name: &str, default: &str) -> String {
    env::var(name).unwrap_or_else(|_| default.to_owned())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let listen: SocketAddr = setting("LISTEN", "127.0.0.1:8090").parse()?;
    let mut settings = Settings {
        homeserver_url: setting("HOMESERVER_URL", "http://127.0.0.1:8008"),
        server_name: setting("SERVER_NAME", "localhost"),
        as_token: env::var("AS_TOKEN").context("AS_TOKEN")?,
        hs_token: env::var("HS_TOKEN").context("HS_TOKEN")?,
        public_url: format!("http://{listen}"),
        data_dir: setting("DATA_DIR", "data").into(),
        ..Settings::default()
    };
    settings.media.bind = listen.ip();
    settings.media.first = setting("UDP_FIRST", "10000").parse()?;
    match env::args().nth(1).as_deref() {
        Some("register") => {
            let file = env::args().nth(2).context("the file to write")?;
            let registration = registration(&settings, &settings.public_url);
            fs::write(file, serde_json::to_string_pretty(&registration)?)?;
        }
        Some("serve") => {
            let running = start(settings).await?;
            println!("voice on http://{listen}, UDP {:?}", running.udp_ports());
            let mut term = tokio::signal::unix::signal(SignalKind::terminate())?;
            let stop = async move {
                tokio::select! {
                    _ = term.recv() => {}
                    _ = tokio::signal::ctrl_c() => {}
                }
            };
            let listener = TcpListener::bind(listen).await?;
            let router = running.router().into_make_service_with_connect_info::<SocketAddr>();
            tokio::select! {
                served = axum::serve(listener, router) => served?,
                () = stop => {}
            }
            running.stop().await;
        }
        _ => anyhow::bail!("say `register FILE` or `serve`"),
    }
    Ok(())
}
