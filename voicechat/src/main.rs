//! The one binary: homeserver and voice, together or apart.
//!
//! Here: what the command line says ([`cli`]), the roles ([`roles`]), what administrators do by hand ([`admin`]), where the log
//! goes ([`logging`]). Everything else is in the crates this one joins; they speak HTTP with each other even in one process.

mod admin;
mod cli;
mod logging;
mod roles;

use std::process::ExitCode;

use clap::Parser as _;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    // The only place that could have chosen another is this line.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match cli.run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("voicechat: {error:#}");
            ExitCode::FAILURE
        }
    }
}
