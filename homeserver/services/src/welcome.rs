//! The link that makes the first administrator: it works once, and only while there is no administrator.

use ruma::OwnedUserId;
use storage::welcome as rows;

use crate::{
    Context, Error, Result,
    accounts::{Accounts, registration::NewAccount, uia::Proof},
};

/// Letters of the token: 190 bits.
const TOKEN_LEN: usize = 32;

/// Welcomes the first administrator. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Welcome {
    cx: Context,
    accounts: Accounts,
}

impl Welcome {
    /// On `accounts`.
    #[must_use]
    pub fn new(cx: Context, accounts: Accounts) -> Self {
        Self { cx, accounts }
    }

    /// The token of the link, the same after each start until it is used; `None` once there is an administrator.
    ///
    /// # Errors
    /// The database's.
    pub async fn token(&self) -> Result<Option<String>> {
        if self.accounts.has_admin().await? {
            return Ok(None);
        }
        let mut tx = self.cx.store.begin().await?;
        let token = rows::token(&mut tx, &self.cx.randomness.letters(TOKEN_LEN)).await?;
        tx.commit().await?;
        Ok(token)
    }

    /// Whether the link still works.
    ///
    /// # Errors
    /// The database's.
    pub async fn is_open(&self, token: &str) -> Result<bool> {
        if self.accounts.has_admin().await? {
            return Ok(false);
        }
        Ok(rows::is_open(&mut self.cx.store.read().await?, token).await?)
    }

    /// Make the first administrator. The token is used up before the account is made, and given back when that fails, so that two
    /// who follow the link at once do not both become one.
    ///
    /// # Errors
    /// [`Error::Forbidden`] when the link does not work any more; what making an account may meet
    /// (`M_USER_IN_USE`, `M_INVALID_USERNAME`, `M_WEAK_PASSWORD`).
    pub async fn make_admin(&self, token: &str, username: &str, password: &str) -> Result<OwnedUserId> {
        if !self.is_open(token).await? {
            return Err(closed());
        }
        let user_id = self.accounts.registration.available(username, None).await?;
        self.accounts.passwords.check_strength(password)?;
        let mut tx = self.cx.store.begin().await?;
        let is_ours = rows::take(&mut tx, token, self.cx.clock.now_ms().cast_signed()).await?;
        tx.commit().await?;
        if !is_ours {
            return Err(closed());
        }
        let new = NewAccount { password: Some(password.to_owned()), is_admin: true, ..NewAccount::default() };
        if let Err(error) = self.accounts.registration.create(&user_id, new, Proof::default()).await {
            let mut tx = self.cx.store.begin().await?;
            rows::restore(&mut tx, token).await?;
            tx.commit().await?;
            return Err(error);
        }
        Ok(user_id)
    }
}

fn closed() -> Error {
    Error::forbidden("this link has been used, or is not the right one")
}
