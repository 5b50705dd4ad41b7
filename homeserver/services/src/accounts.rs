//! Who somebody is: accounts, and what proves who they are.
//!
//! [`Accounts`] holds the parts: [`password`], [`tokens`] (with [`refresh`]), [`uia`] (user-interactive authentication),
//! [`registration`], [`openid`]. Devices and profiles are services of their own. Rooms know nothing of accounts and accounts
//! nothing of rooms: what deactivation means for memberships is for whoever calls [`Accounts::deactivate`].

pub mod appservice_tokens;
pub mod openid;
pub mod password;
pub mod refresh;
pub mod registration;
pub mod secrets;
pub mod signed;
pub mod tokens;
pub mod uia;

use std::{ops::Deref, sync::Arc, time::Duration};

use ruma::{OwnedUserId, UserId};
pub use storage::accounts::Account;
use storage::{accounts as rows, devices as device_rows, profiles, refresh_tokens, tokens as token_rows};

use self::{
    openid::OpenId,
    password::{Passwords, Verdict},
    registration::Registration,
    tokens::{AppserviceTokens, NewSession, Session, Tokens},
    uia::Uia,
};
pub use crate::user::{Masquerade, User};
use crate::{
    Context, Error, Result,
    error::Code,
    limits::{Action, Limits, Subject},
    valkey::Valkey,
};

/// How often what has expired is deleted.
const SWEEP_EVERY: Duration = Duration::from_secs(3600);

/// How accounts behave.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The price of passwords.
    pub password: password::Settings,
    /// How long tokens last.
    pub tokens: tokens::Settings,
    /// Who may register, and how.
    pub registration: registration::Settings,
    /// Tokens that prove an identity to third parties, and those that log another device in.
    pub openid: openid::Settings,
}

/// Accounts of this server. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Accounts(Arc<Parts>);

/// The parts of [`Accounts`].
#[derive(Debug)]
pub struct Parts {
    cx: Context,
    limits: Limits,
    /// Passwords.
    pub passwords: Passwords,
    /// Access tokens.
    pub tokens: Tokens,
    /// Proving oneself again.
    pub uia: Uia,
    /// Making accounts.
    pub registration: Registration,
    /// Proving oneself to third parties.
    pub openid: OpenId,
}

impl Deref for Accounts {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl Accounts {
    /// On `cx`; refresh tokens are kept in `valkey` when there is one.
    ///
    /// # Errors
    /// The database's; [`Error::Internal`] for settings that cannot be.
    pub async fn start(
        cx: Context,
        settings: Settings,
        limits: Limits,
        valkey: Option<Valkey>,
        appservices: Arc<dyn AppserviceTokens>,
    ) -> Result<Self> {
        let passwords = Passwords::start(&settings.password, cx.randomness.clone())?;
        let tokens = Tokens::start(cx.clone(), settings.tokens, valkey, appservices).await?;
        let uia = Uia::new(cx.clone(), passwords.clone(), limits.clone());
        let registration =
            Registration::new(cx.clone(), settings.registration, passwords.clone(), tokens.clone(), uia.clone());
        let openid = OpenId::new(cx.clone(), settings.openid);
        let accounts = Self(Arc::new(Parts { cx, limits, passwords, tokens, uia, registration, openid }));
        let weak = Arc::downgrade(&accounts.0);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(SWEEP_EVERY).await;
                let Some(parts) = weak.upgrade() else { return };
                if let Err(error) = Self(parts).sweep().await {
                    tracing::warn!(%error, "expired tokens cannot be deleted yet");
                }
            }
        });
        Ok(accounts)
    }

    /// Delete what has expired.
    ///
    /// # Errors
    /// The database's.
    pub async fn sweep(&self) -> Result<()> {
        self.tokens.sweep().await?;
        self.uia.sweep().await
    }

    /// Whom an access token belongs to. Locked users and guests are recognised too: the caller asks the flags.
    ///
    /// # Errors
    /// [`Error::UnknownToken`]; [`Error::Forbidden`] when an application service wants to be a user outside its namespaces;
    /// `M_UNKNOWN_DEVICE` when it names a device that is not.
    pub async fn authenticate(&self, token: &str, masquerade: &Masquerade) -> Result<User> {
        self.tokens.authenticate(token, masquerade).await
    }

    /// The local user that `name` means: a user id of ours, or a localpart. Capitals are folded unless such a user exists.
    ///
    /// # Errors
    /// The database's. `None` when it can be nobody here.
    pub async fn named(&self, name: &str) -> Result<Option<(OwnedUserId, Account)>> {
        let full = if name.starts_with('@') { name.to_owned() } else { format!("@{name}:{}", self.cx.server_name) };
        let Ok(user_id) = OwnedUserId::try_from(full) else { return Ok(None) };
        if !self.cx.is_local(&user_id) {
            return Ok(None);
        }
        if let Some(account) = self.find(&user_id).await? {
            return Ok(Some((user_id, account)));
        }
        let folded = format!("@{}:{}", user_id.localpart().to_lowercase(), self.cx.server_name);
        let Ok(folded) = OwnedUserId::try_from(folded) else { return Ok(None) };
        if folded == user_id {
            return Ok(None);
        }
        Ok(self.find(&folded).await?.map(|account| (folded, account)))
    }

    /// The account of a user, deactivated or not.
    ///
    /// # Errors
    /// The database's.
    pub async fn find(&self, user_id: &UserId) -> Result<Option<Account>> {
        let mut tx = self.cx.store.read().await?;
        Ok(rows::by_name(&mut tx, user_id.as_str()).await?)
    }

    /// Log in with a password. `name` is a user id or a localpart.
    ///
    /// # Errors
    /// [`Error::Forbidden`] when name or password is wrong (which of them is not said), `M_USER_DEACTIVATED`,
    /// `M_USER_LOCKED`, [`Error::Limited`].
    pub async fn log_in_by_password(&self, name: &str, password: &str, session: NewSession) -> Result<Session> {
        let key = Subject::Account(name.to_lowercase());
        self.limits.check(Action::LoginFailure, &key).await?;
        let found = self.named(name).await?;
        let kept = found.as_ref().and_then(|(_, account)| account.password.as_deref());
        let verdict = self.passwords.verify(password, kept).await?;
        let Some((user_id, account)) = found.filter(|_| verdict != Verdict::Wrong) else {
            self.limits.take(Action::LoginFailure, &key).await?;
            return Err(Error::forbidden("wrong user name or password"));
        };
        if verdict == Verdict::RightButOutdated {
            self.store_password(account.user_nid, password).await?;
        }
        self.log_in(&user_id, &account, session).await
    }

    /// Log in with a token from [`OpenId::login_token`].
    ///
    /// # Errors
    /// [`Error::Forbidden`] when the token is not one.
    pub async fn log_in_by_token(&self, token: &str, session: NewSession) -> Result<Session> {
        let user_nid = self.openid.take_login_token(token).await?;
        let names = self.cx.numbers.user_names(&[user_nid]).await?;
        let name = names.get(&user_nid).ok_or(Error::NotFound("user"))?;
        let (user_id, account) = self.named(name).await?.ok_or(Error::NotFound("user"))?;
        self.log_in(&user_id, &account, session).await
    }

    /// Log in a user whom their application service vouches for.
    ///
    /// # Errors
    /// `M_EXCLUSIVE` outside its namespaces, [`Error::Forbidden`] when there is no such account.
    pub async fn log_in_by_appservice(&self, id: &str, name: &str, session: NewSession) -> Result<Session> {
        let Some((user_id, account)) = self.named(name).await? else {
            return Err(Error::forbidden("no such user"));
        };
        if !self.tokens.appservices().may_be(id, &user_id) {
            let words = "the application service may not act as this user";
            return Err(Error::Specific(Code::Exclusive, words.into()));
        }
        self.log_in(&user_id, &account, session).await
    }

    async fn log_in(&self, user_id: &UserId, account: &Account, session: NewSession) -> Result<Session> {
        if account.deactivated_ms.is_some() {
            return Err(Error::Specific(Code::UserDeactivated, "this account has been deactivated".into()));
        }
        if account.is_locked {
            return Err(Error::Specific(Code::UserLocked, "this account has been locked".into()));
        }
        self.tokens.open(account.user_nid, user_id, session).await
    }

    async fn store_password(&self, user_nid: i64, password: &str) -> Result<bool> {
        let hash = self.passwords.hash(password).await?;
        let mut tx = self.cx.store.begin().await?;
        let is_set = rows::set_password(&mut tx, user_nid, Some(&hash)).await?;
        tx.commit().await?;
        Ok(is_set)
    }

    /// Set a password. Which sessions end with it is the caller's affair.
    ///
    /// # Errors
    /// `M_WEAK_PASSWORD`; [`Error::NotFound`] without such a living account.
    pub async fn set_password(&self, user_nid: i64, password: &str) -> Result<()> {
        self.passwords.check_strength(password)?;
        if self.store_password(user_nid, password).await? { Ok(()) } else { Err(Error::NotFound("user")) }
    }

    /// End an account: password, devices, tokens and profile go, the name stays taken. Memberships are the caller's affair.
    /// With `erase` the user asked to be forgotten.
    ///
    /// # Errors
    /// [`Error::NotFound`] without such a living account.
    pub async fn deactivate(&self, user_id: &UserId, erase: bool) -> Result<()> {
        let account = self.find(user_id).await?.ok_or(Error::NotFound("user"))?;
        let nid = account.user_nid;
        let mut tx = self.cx.store.begin().await?;
        if !rows::deactivate(&mut tx, nid, self.cx.clock.now_ms().cast_signed(), erase).await? {
            return Err(Error::NotFound("user"));
        }
        let devices: Vec<String> =
            device_rows::of_user(&mut tx, nid).await?.into_iter().map(|device| device.device_id).collect();
        device_rows::delete(&mut tx, nid, &devices).await?;
        let ended = token_rows::delete_of_user(&mut tx, nid).await?;
        token_rows::delete_short_of_user(&mut tx, nid).await?;
        refresh_tokens::drop_user(&mut tx, nid).await?;
        profiles::delete_all(&mut tx, nid).await?;
        tx.commit().await?;
        self.tokens.ended_with_user(nid, user_id, ended).await
    }

    /// Make or unmake a server administrator.
    ///
    /// # Errors
    /// [`Error::NotFound`] without such a living account.
    pub async fn set_admin(&self, user_id: &UserId, is_admin: bool) -> Result<()> {
        let account = self.find(user_id).await?.ok_or(Error::NotFound("user"))?;
        let mut tx = self.cx.store.begin().await?;
        let is_set = rows::set_admin(&mut tx, account.user_nid, is_admin).await?;
        tx.commit().await?;
        self.changed(user_id, is_set)
    }

    /// Lock an account (it may then only log out) or unlock it.
    ///
    /// # Errors
    /// [`Error::NotFound`] without such a living account.
    pub async fn set_locked(&self, user_id: &UserId, is_locked: bool) -> Result<()> {
        let account = self.find(user_id).await?.ok_or(Error::NotFound("user"))?;
        let mut tx = self.cx.store.begin().await?;
        let is_set = rows::set_locked(&mut tx, account.user_nid, is_locked).await?;
        tx.commit().await?;
        self.changed(user_id, is_set)
    }

    /// Suspend an account (it may then read, not speak) or restore it.
    ///
    /// # Errors
    /// [`Error::NotFound`] without such a living account.
    pub async fn set_suspended(&self, user_id: &UserId, is_suspended: bool) -> Result<()> {
        let account = self.find(user_id).await?.ok_or(Error::NotFound("user"))?;
        let mut tx = self.cx.store.begin().await?;
        let is_set = rows::set_suspended(&mut tx, account.user_nid, is_suspended).await?;
        tx.commit().await?;
        self.changed(user_id, is_set)
    }

    fn changed(&self, user_id: &UserId, is_set: bool) -> Result<()> {
        self.tokens.account_changed(user_id);
        if is_set { Ok(()) } else { Err(Error::NotFound("user")) }
    }

    /// The account an administrator is about to restrict.
    ///
    /// # Errors
    /// [`Error::Forbidden`] unless `admin` is one, and for administrators as the target; [`Error::NotFound`].
    pub async fn moderated(&self, admin: &User, target: &UserId) -> Result<Account> {
        admin.must_be_admin()?;
        if !self.cx.is_local(target) {
            return Err(Error::InvalidParam("the user belongs to another server".into()));
        }
        let account = self.find(target).await?.filter(|account| account.deactivated_ms.is_none());
        let account = account.ok_or(Error::NotFound("user"))?;
        if account.is_admin {
            return Err(Error::forbidden("an administrator cannot be locked or suspended"));
        }
        Ok(account)
    }

    /// True when the server has an administrator.
    ///
    /// # Errors
    /// The database's.
    pub async fn has_admin(&self) -> Result<bool> {
        let mut tx = self.cx.store.read().await?;
        Ok(rows::count_admins(&mut tx).await? > 0)
    }
}
