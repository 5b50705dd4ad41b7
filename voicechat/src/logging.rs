//! Where the log goes: standard error, for people or as JSON lines.

use std::io::Write as _;

use anyhow::Context as _;
use homeserver::config::sections::{Log, LogFormat};
use tracing_subscriber::EnvFilter;

/// Libraries that say at `info` what only their authors want to know, and one that warns of each codec which we do not offer.
const QUIET: &str = "sqlx=warn,hyper=warn,h2=warn,rustls=warn,fred=warn,hickory_resolver=warn,hickory_proto=warn,\
    ruma_state_res=warn,str0m=warn,str0m::format=error,dimpl=warn";

/// Start logging. Called once.
pub(crate) fn start(settings: &Log) -> anyhow::Result<()> {
    start_at(settings, &settings.filter)
}

/// Start logging for a command whose answer is on standard output: only what went wrong.
pub(crate) fn start_quiet(settings: &Log) -> anyhow::Result<()> {
    start_at(settings, "error")
}

/// Say something to whoever started us: on standard error, not in the log. Nobody need be listening.
pub(crate) fn tell(words: &str) {
    let _ = writeln!(std::io::stderr(), "{words}");
}

fn start_at(settings: &Log, filter: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(format!("{QUIET},{filter}")).context("log.filter")?;
    // What cannot be written is dropped: saying so on the same closed standard error would end the server.
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).log_internal_errors(false);
    let started = match settings.format {
        LogFormat::Text => log.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("the log cannot be started: {error}"))
}
