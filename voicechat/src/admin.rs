//! What administrators do by hand on the server, whether or not it runs: the commands work on its database.
//!
//! A running server on SQLite learns of a changed password or account within a minute (its memory of access tokens lasts so long);
//! with Valkey at once.

use std::io::BufRead as _;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use homeserver::{config::Config, start::Homeserver};
use rand::{Rng as _, distr::Alphanumeric};
use services::{
    Services,
    accounts::{registration::NewAccount, uia::Proof},
};

/// Letters of a password made here: 119 bits.
const PASSWORD_LEN: usize = 20;

#[derive(Debug, Subcommand)]
pub(crate) enum AdminCommand {
    /// Make an account.
    CreateUser {
        /// The name before the colon.
        name: String,
        /// Make it an administrator.
        #[arg(long)]
        admin: bool,
        #[command(flatten)]
        password: Password,
    },
    /// Give an account a new password; its sessions stay.
    ResetPassword {
        /// The name before the colon, or the whole user id.
        name: String,
        #[command(flatten)]
        password: Password,
    },
    /// Make an account an administrator.
    MakeAdmin {
        /// The name before the colon, or the whole user id.
        name: String,
        /// Take it back instead.
        #[arg(long)]
        revoke: bool,
    },
    /// End an account for good: nobody can log in to it or have its name again.
    Deactivate {
        /// The name before the colon, or the whole user id.
        name: String,
        /// The person asked to be forgotten.
        #[arg(long)]
        erase: bool,
    },
    /// Replace the key the server signs with. The old one is served as an expired key from now on; a running server takes up the
    /// new one when it starts again, which should be within a day.
    RotateKey,
}

#[derive(Debug, Args)]
pub(crate) struct Password {
    /// Read the password from the first line of standard input; otherwise one is made and printed.
    #[arg(long)]
    password_stdin: bool,
}

impl Password {
    /// The password, and whether it was made here.
    fn choose(&self) -> anyhow::Result<(String, bool)> {
        if !self.password_stdin {
            let made = rand::rng().sample_iter(Alphanumeric).take(PASSWORD_LEN).map(char::from).collect();
            return Ok((made, true));
        }
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).context("no password on standard input")?;
        Ok((line.trim_end_matches(['\r', '\n']).to_owned(), false))
    }
}

/// Do it.
pub(crate) async fn run(config: &Config, command: AdminCommand) -> anyhow::Result<()> {
    let homeserver = Homeserver::at_rest(config).await?;
    let done = carry_out(homeserver.services(), command).await;
    homeserver.stop().await;
    done
}

async fn carry_out(services: &Services, command: AdminCommand) -> anyhow::Result<()> {
    let accounts = &services.accounts;
    match command {
        AdminCommand::CreateUser { name, admin, password } => {
            let user_id = accounts.registration.available(&name, None).await?;
            let (password, is_made) = password.choose()?;
            let new = NewAccount { password: Some(password.clone()), is_admin: admin, ..NewAccount::default() };
            accounts.registration.create(&user_id, new, Proof::default()).await?;
            println!("{user_id} has an account");
            tell(&password, is_made);
        }
        AdminCommand::ResetPassword { name, password } => {
            let (user_id, account) = known(services, &name).await?;
            let (password, is_made) = password.choose()?;
            accounts.set_password(account, &password).await?;
            println!("{user_id} has a new password");
            tell(&password, is_made);
        }
        AdminCommand::MakeAdmin { name, revoke } => {
            let (user_id, _) = known(services, &name).await?;
            accounts.set_admin(&user_id, !revoke).await?;
            println!("{user_id} is {} administrator", if revoke { "no longer an" } else { "now an" });
        }
        AdminCommand::Deactivate { name, erase } => {
            let (user_id, user_nid) = known(services, &name).await?;
            accounts.deactivate(&user_id, erase).await?;
            services.rooms.leave_all(&user_id, user_nid).await?;
            println!("{user_id} is deactivated");
        }
        AdminCommand::RotateKey => {
            let (old, new) = services.federation.rotate_key().await?;
            println!("{new} replaces {old}; restart the server to use it");
        }
    }
    Ok(())
}

/// A living account's user id and number.
async fn known(services: &Services, name: &str) -> anyhow::Result<(ruma::OwnedUserId, i64)> {
    match services.accounts.named(name).await? {
        Some((user_id, account)) if account.deactivated_ms.is_none() => Ok((user_id, account.user_nid)),
        Some((user_id, _)) => bail!("{user_id} has been deactivated"),
        None => bail!("there is no account called {name}"),
    }
}

fn tell(password: &str, is_made: bool) {
    if is_made {
        println!("password: {password}");
    }
}
