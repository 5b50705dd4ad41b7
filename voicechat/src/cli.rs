//! What the command line says.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use homeserver::config::{Config, Faults};

use crate::{admin, logging, roles};

/// Read when no `--config` is given and it is there.
const DEFAULT_FILE: &str = "voicechat.toml";
/// Exit status of a configuration with faults.
const FAULTY_CONFIGURATION: u8 = 2;

/// A Matrix homeserver with voice rooms.
///
/// Without a command it runs everything in one process, with a database in ./data and no file written by hand.
#[derive(Debug, Parser)]
#[command(name = "voicechat", version, args_conflicts_with_subcommands = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    up: Flags,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run homeserver and voice in one process (what happens without a command).
    Up(Flags),
    /// Run the homeserver alone.
    Homeserver(Flags),
    /// Run the voice service alone.
    Voice(Flags),
    /// Look after accounts.
    Admin {
        #[command(flatten)]
        place: Place,
        #[command(subcommand)]
        command: admin::AdminCommand,
    },
    /// Show or check the configuration.
    Config(ConfigCommand),
    /// Print the version.
    Version,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct ConfigCommand {
    /// Print a commented file with every key and its default.
    #[arg(long)]
    example: bool,
    /// Say what is wrong with a file, a line each.
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
}

/// Which server is meant.
#[derive(Debug, Default, Args)]
struct Place {
    /// Configuration file (default: voicechat.toml, if there is one).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory for keys, database and files.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The part of user ids after the colon.
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
    /// `sqlite://PATH` or `postgres://…`.
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// redis://… of Valkey or Redis.
    #[arg(long, value_name = "URL")]
    valkey: Option<String>,
}

/// Settings for a quick start; each overrides the file and the environment.
#[derive(Debug, Default, Args)]
pub(crate) struct Flags {
    #[command(flatten)]
    place: Place,
    /// Where to listen for clients (HTTP).
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Where to listen for other servers (HTTPS), or "off".
    #[arg(long, value_name = "ADDR")]
    federation_listen: Option<String>,
    /// Certificate chain of the federation listener (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// Private key of the federation listener (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
    /// Let everybody register.
    #[arg(long)]
    open_registration: bool,
    /// Secret of the Synapse-style registration API.
    #[arg(long, value_name = "SECRET")]
    registration_shared_secret: Option<String>,
    /// Reach other servers at private and loopback addresses too.
    #[arg(long)]
    allow_private_addresses: bool,
    /// Certificate (PEM) of an authority to trust; may be given several times.
    #[arg(long, value_name = "FILE")]
    trust_ca: Vec<PathBuf>,
    /// Switch all rate limits off.
    #[arg(long)]
    no_rate_limits: bool,
}

type Setting = (&'static str, Option<String>);

impl Flags {
    /// As keys of the configuration.
    fn settings(&self) -> Vec<Setting> {
        let on = |is_set: bool, value: &str| is_set.then(|| value.to_owned());
        let authorities: Vec<String> = self.trust_ca.iter().map(path).collect();
        vec![
            ("listen.client", self.listen.map(|address| address.to_string())),
            ("listen.federation", self.federation_listen.clone()),
            ("listen.tls_certificate", self.tls_certificate.as_ref().map(path)),
            ("listen.tls_key", self.tls_key.as_ref().map(path)),
            ("registration.mode", on(self.open_registration, "open")),
            ("registration.shared_secret", self.registration_shared_secret.clone()),
            ("federation.allow_private_addresses", on(self.allow_private_addresses, "true")),
            ("federation.trusted_ca_files", on(!authorities.is_empty(), &authorities.join(","))),
            ("limits.enabled", on(self.no_rate_limits, "false")),
        ]
    }
}

impl Place {
    fn settings(&self) -> Vec<Setting> {
        vec![
            ("server.data_dir", self.data.as_ref().map(path)),
            ("server.name", self.server_name.clone()),
            ("database.url", self.database.clone()),
            ("valkey.url", self.valkey.clone()),
        ]
    }

    /// File, environment and flags together.
    fn load(&self, more: Vec<Setting>) -> anyhow::Result<Config> {
        let file = match &self.config {
            Some(path) => Some(path.clone()),
            None => Some(PathBuf::from(DEFAULT_FILE)).filter(|path| path.exists()),
        };
        let text = match &file {
            Some(path) => std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?,
            None => String::new(),
        };
        let flags = self.settings().into_iter().chain(more);
        let flags = flags.filter_map(|(key, value)| Some((key.to_owned(), value?)));
        Config::load(&text, environment(), flags).map_err(|faults| in_place(&faults, file.as_ref()))
    }
}

fn path(path: impl AsRef<Path>) -> String {
    path.as_ref().display().to_string()
}

/// The environment's variables that are text; names are compared later.
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

fn in_place(faults: &Faults, file: Option<&PathBuf>) -> anyhow::Error {
    let place = file.map_or_else(|| "configuration".to_owned(), |path| path.display().to_string());
    anyhow::anyhow!("{place}: {}", faults.0.join(&format!("\n{place}: ")))
}

impl Cli {
    /// Do it.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            None => run_role(&self.up, roles::Role::Up),
            Some(Command::Up(flags)) => run_role(&flags, roles::Role::Up),
            Some(Command::Homeserver(flags)) => run_role(&flags, roles::Role::Homeserver),
            Some(Command::Voice(flags)) => run_role(&flags, roles::Role::Voice),
            Some(Command::Admin { place, command }) => {
                let config = place.load(Vec::new())?;
                logging::start_quiet(&config.log)?;
                runtime()?.block_on(admin::run(&config, command))?;
                Ok(ExitCode::SUCCESS)
            }
            Some(Command::Version) => {
                println!("voicechat {}", env!("CARGO_PKG_VERSION"));
                Ok(ExitCode::SUCCESS)
            }
            Some(Command::Config(ConfigCommand { check: Some(file), .. })) => check(&file),
            Some(Command::Config(ConfigCommand { .. })) => {
                print!("{}", Config::example());
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

fn run_role(flags: &Flags, role: roles::Role) -> anyhow::Result<ExitCode> {
    let config = flags.place.load(flags.settings())?;
    logging::start(&config.log)?;
    runtime()?.block_on(roles::run(&config, role))?;
    Ok(ExitCode::SUCCESS)
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("voicechat").build()?)
}

fn check(file: &PathBuf) -> anyhow::Result<ExitCode> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    match Config::load(&text, environment(), []) {
        Ok(_) => {
            println!("{}: ok", file.display());
            Ok(ExitCode::SUCCESS)
        }
        Err(faults) => {
            for fault in faults.0 {
                println!("{}: {fault}", file.display());
            }
            Ok(ExitCode::from(FAULTY_CONFIGURATION))
        }
    }
}
