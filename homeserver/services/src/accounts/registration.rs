//! Making accounts: who may, under which names.
//!
//! Source: Client-Server API, "Account registration", "Guest access"; appendices, "User identifiers". The registration by
//! shared secret is Synapse's (`/_synapse/admin/v1/register`), which provisioning tools and test suites speak.

use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use ruma::{OwnedUserId, UserId};
use serde_json::{Map, Value, json};
use sha1::Sha1;
use storage::{
    accounts::{self as rows, Account},
    profiles, registration_tokens,
    registration_tokens::RegistrationToken,
    tokens as token_rows,
};

use super::{
    User,
    password::Passwords,
    secrets::hash,
    tokens::Tokens,
    uia::{self, Proof, Stage, Uia},
};
use crate::{Context, Error, Result, error::Code};

/// The longest user id, in bytes.
const USER_ID_BYTES_MAX: usize = 255;
/// Letters of a name we choose.
const CHOSEN_NAME_LEN: usize = 12;
/// Digits of a guest's name.
const GUEST_NAME_BELOW: u64 = 10_000_000_000;
/// How long a nonce of the shared-secret registration lasts.
const NONCE_LIFETIME: Duration = Duration::from_secs(60);
/// Registration tokens listed at once.
const TOKENS_LISTED_MAX: i64 = 1000;
const NONCE: &str = "nonce";

/// Who may register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// Everybody.
    Open,
    /// Who has a registration token.
    Token,
    /// Nobody, but by application services, the shared secret and administrators.
    #[default]
    Closed,
}

/// A document a user must accept to register.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Its id, such as `privacy_policy`.
    pub id: String,
    /// Its version.
    pub version: String,
    /// Its language, such as `en`.
    pub language: String,
    /// Its title.
    pub name: String,
    /// Where it can be read.
    pub url: String,
}

/// Who may register, and how.
#[derive(Clone, Default)]
pub struct Settings {
    /// Who may.
    pub access: Access,
    /// Whether guests may come.
    pub allows_guests: bool,
    /// What must be accepted.
    pub policies: Vec<Policy>,
    /// The secret of `/_synapse/admin/v1/register`; without it there is none.
    pub shared_secret: Option<String>,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("access", &self.access)
            .field("allows_guests", &self.allows_guests)
            .field("policies", &self.policies)
            .field("has_shared_secret", &self.shared_secret.is_some())
            .finish()
    }
}

/// An account to be made.
#[derive(Debug, Clone, Default)]
pub struct NewAccount {
    /// Without one nobody logs in by password.
    pub password: Option<String>,
    /// Its display name; the localpart otherwise.
    pub display_name: Option<String>,
    /// Server administrator.
    pub is_admin: bool,
    /// Guest.
    pub is_guest: bool,
    /// The application service that makes it.
    pub appservice: Option<String>,
}

/// A registration by shared secret, as it came.
#[derive(Clone)]
pub struct SharedSecretRequest {
    /// From [`Registration::nonce`].
    pub nonce: String,
    /// Localpart.
    pub username: String,
    /// Password.
    pub password: String,
    /// Server administrator.
    pub is_admin: bool,
    /// Synapse's kind of user, part of what is signed.
    pub user_type: Option<String>,
    /// HMAC-SHA1 over the rest, hexadecimal.
    pub mac: String,
}

impl std::fmt::Debug for SharedSecretRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedSecretRequest").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Makes accounts. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Registration {
    cx: Context,
    settings: std::sync::Arc<Settings>,
    passwords: Passwords,
    tokens: Tokens,
    uia: Uia,
}

impl Registration {
    /// On `cx`.
    #[must_use]
    pub fn new(cx: Context, settings: Settings, passwords: Passwords, tokens: Tokens, uia: Uia) -> Self {
        Self { cx, settings: settings.into(), passwords, tokens, uia }
    }

    /// The settings.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What must be done to register, and what those stages need to know.
    ///
    /// # Errors
    /// [`Error::Forbidden`] when registration is closed.
    pub fn demand(&self) -> Result<uia::Demand<'static>> {
        let mut stages = match self.settings.access {
            Access::Closed => return Err(Error::forbidden("registration is closed on this server")),
            Access::Open => Vec::new(),
            Access::Token => vec![Stage::RegistrationToken],
        };
        let mut params = Map::new();
        if !self.settings.policies.is_empty() {
            stages.push(Stage::Terms);
            params.insert(Stage::Terms.name().to_owned(), self.policies());
        }
        if stages.is_empty() {
            stages.push(Stage::Dummy);
        }
        Ok(uia::Demand { operation: "register", owner: None, flows: vec![stages], params })
    }

    fn policies(&self) -> Value {
        let mut policies = Map::new();
        for policy in &self.settings.policies {
            let entry = policies.entry(policy.id.clone()).or_insert_with(|| json!({ "version": policy.version }));
            entry[&policy.language] = json!({ "name": policy.name, "url": policy.url });
        }
        json!({ "policies": policies })
    }

    /// The user id that `username` would give, if it may be had now. Capitals are folded.
    ///
    /// # Errors
    /// `M_INVALID_USERNAME`, `M_EXCLUSIVE`, `M_USER_IN_USE`.
    pub async fn available(&self, username: &str, appservice: Option<&str>) -> Result<OwnedUserId> {
        let user_id = self.user_id(username, appservice)?;
        if self.tokens.appservices().is_reserved(appservice, &user_id) {
            return Err(Error::Specific(Code::Exclusive, "this name is reserved".into()));
        }
        if let Some(id) = appservice
            && !self.tokens.appservices().may_be(id, &user_id)
        {
            return Err(Error::Specific(Code::Exclusive, "this name is outside the application service's".into()));
        }
        let mut tx = self.cx.store.read().await?;
        if rows::by_name(&mut tx, user_id.as_str()).await?.is_some() {
            return Err(in_use());
        }
        Ok(user_id)
    }

    /// A free name for somebody who asked for none.
    ///
    /// # Errors
    /// The database's.
    pub async fn chosen_name(&self) -> Result<OwnedUserId> {
        self.user_id(&self.cx.randomness.letters(CHOSEN_NAME_LEN).to_lowercase(), None)
    }

    fn user_id(&self, username: &str, appservice: Option<&str>) -> Result<OwnedUserId> {
        let invalid = |words: &str| Error::Specific(Code::InvalidUsername, words.to_owned());
        let localpart = username.to_lowercase();
        let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._=-/+".contains(c);
        if localpart.is_empty() || !localpart.chars().all(is_allowed) {
            return Err(invalid("a user name consists of a-z, 0-9, and ._=-/+"));
        }
        if appservice.is_none() && localpart.starts_with('_') {
            return Err(invalid("a user name does not begin with _"));
        }
        if appservice.is_none() && localpart.chars().all(|c| c.is_ascii_digit()) {
            return Err(invalid("names of digits alone are for guests"));
        }
        let user_id = format!("@{localpart}:{}", self.cx.server_name);
        if user_id.len() > USER_ID_BYTES_MAX {
            return Err(invalid("the user name is too long"));
        }
        UserId::parse(user_id).map_err(|_| invalid("this is not a user name"))
    }

    /// Make an account. `proof` is used up in the same transaction. Returns the user's number.
    ///
    /// # Errors
    /// `M_USER_IN_USE`, `M_WEAK_PASSWORD`, [`Error::Forbidden`] when the proof was used.
    pub async fn create(&self, user_id: &UserId, new: NewAccount, proof: Proof) -> Result<i64> {
        let password = match &new.password {
            Some(password) => {
                self.passwords.check_strength(password)?;
                Some(self.passwords.hash(password).await?)
            }
            None => None,
        };
        let user_nid = self.cx.numbers.user(user_id).await?;
        let display_name = new.display_name.unwrap_or_else(|| user_id.localpart().to_owned());
        let account = Account {
            user_nid,
            password,
            created_ms: self.cx.clock.now_ms().cast_signed(),
            deactivated_ms: None,
            is_erased: false,
            is_admin: new.is_admin,
            is_locked: false,
            is_suspended: false,
            is_guest: new.is_guest,
            appservice: new.appservice,
        };
        let mut tx = self.cx.store.begin().await?;
        if !rows::create(&mut tx, &account).await? {
            return Err(in_use());
        }
        profiles::put(&mut tx, user_nid, "displayname", &Value::from(display_name).to_string()).await?;
        uia::consume(&mut tx, proof).await?;
        tx.commit().await?;
        self.tokens.account_changed(user_id);
        Ok(user_nid)
    }

    /// Make a guest's account.
    ///
    /// # Errors
    /// `M_GUEST_ACCESS_FORBIDDEN`.
    pub async fn create_guest(&self) -> Result<(OwnedUserId, i64)> {
        if !self.settings.allows_guests {
            return Err(Error::Specific(Code::GuestAccessForbidden, "guests are not admitted here".into()));
        }
        let number = self.cx.randomness.below(GUEST_NAME_BELOW);
        let user_id = UserId::parse(format!("@{number}:{}", self.cx.server_name)).map_err(Error::internal)?;
        let new = NewAccount { is_guest: true, ..NewAccount::default() };
        let nid = self.create(&user_id, new, Proof::default()).await?;
        Ok((user_id, nid))
    }

    /// Turn a guest into a regular user with a password.
    ///
    /// # Errors
    /// [`Error::Forbidden`] unless `guest` is a guest called `username`.
    pub async fn upgrade_guest(&self, guest: &User, username: &str, password: &str, proof: Proof) -> Result<()> {
        if !guest.is_guest || guest.user_id.localpart() != username {
            return Err(Error::forbidden("the guest's access token and the user name do not belong together"));
        }
        self.passwords.check_strength(password)?;
        let password = self.passwords.hash(password).await?;
        let mut tx = self.cx.store.begin().await?;
        if !rows::upgrade_guest(&mut tx, guest.nid, Some(&password)).await? {
            return Err(Error::forbidden("this account is not a guest's"));
        }
        uia::consume(&mut tx, proof).await?;
        tx.commit().await?;
        self.tokens.account_changed(&guest.user_id);
        Ok(())
    }

    /// Whether an account could be made with this registration token now.
    ///
    /// # Errors
    /// The database's.
    pub async fn is_token_valid(&self, token: &str) -> Result<bool> {
        let mut tx = self.cx.store.read().await?;
        Ok(registration_tokens::is_free(&mut tx, token, self.cx.clock.now_ms().cast_signed()).await?)
    }

    /// Make a registration token, chosen by chance. `uses_allowed` `None`: without end; `lifetime` `None`: for ever.
    ///
    /// # Errors
    /// The database's.
    pub async fn create_token(&self, uses_allowed: Option<u32>, lifetime: Option<Duration>) -> Result<String> {
        let token = self.cx.randomness.letters(16);
        let now_ms = self.cx.clock.now_ms().cast_signed();
        let lifetime_ms = |lifetime: Duration| i64::try_from(lifetime.as_millis()).unwrap_or(i64::MAX);
        let expires_ms = lifetime.map(|lifetime| now_ms.saturating_add(lifetime_ms(lifetime)));
        let mut tx = self.cx.store.begin().await?;
        registration_tokens::create(&mut tx, &token, uses_allowed.map(i64::from), expires_ms).await?;
        tx.commit().await?;
        Ok(token)
    }

    /// Registration tokens, up to [`TOKENS_LISTED_MAX`].
    ///
    /// # Errors
    /// The database's.
    pub async fn tokens(&self) -> Result<Vec<RegistrationToken>> {
        let mut tx = self.cx.store.read().await?;
        Ok(registration_tokens::all(&mut tx, TOKENS_LISTED_MAX).await?)
    }

    /// Delete a registration token. False when there was none.
    ///
    /// # Errors
    /// The database's.
    pub async fn delete_token(&self, token: &str) -> Result<bool> {
        let mut tx = self.cx.store.begin().await?;
        let was = registration_tokens::delete(&mut tx, token).await?;
        tx.commit().await?;
        Ok(was)
    }

    /// A nonce for one registration by shared secret.
    ///
    /// # Errors
    /// `M_UNRECOGNIZED` when the server has no such secret.
    pub async fn nonce(&self) -> Result<String> {
        self.secret()?;
        let nonce = self.cx.randomness.letters(44);
        let lifetime_ms = i64::try_from(NONCE_LIFETIME.as_millis()).unwrap_or(i64::MAX);
        let expires_ms = self.cx.clock.now_ms().cast_signed().saturating_add(lifetime_ms);
        let mut tx = self.cx.store.begin().await?;
        token_rows::put_short(&mut tx, NONCE, &hash(&nonce), 0, expires_ms).await?;
        tx.commit().await?;
        Ok(nonce)
    }

    /// Check a registration by shared secret; the nonce is used up.
    ///
    /// # Errors
    /// [`Error::Forbidden`] when the signature is not right; [`Error::Invalid`] for an unknown nonce.
    pub async fn check_shared_secret(&self, request: &SharedSecretRequest) -> Result<()> {
        let secret = self.secret()?;
        let mut tx = self.cx.store.begin().await?;
        let found = token_rows::take_short(&mut tx, NONCE, &hash(&request.nonce)).await?;
        tx.commit().await?;
        if found.is_none_or(|(_, expires_ms)| expires_ms <= self.cx.clock.now_ms().cast_signed()) {
            return Err(Error::invalid("the nonce is not known"));
        }
        let mut mac = Hmac::<Sha1>::new_from_slice(secret.as_bytes()).map_err(Error::internal)?;
        let role = if request.is_admin { "admin" } else { "notadmin" };
        let fields = [&request.nonce, &request.username, &request.password, role];
        mac.update(fields.join("\0").as_bytes());
        if let Some(user_type) = &request.user_type {
            mac.update(b"\0");
            mac.update(user_type.as_bytes());
        }
        let signature = from_hex(&request.mac).unwrap_or_default();
        mac.verify_slice(&signature).map_err(|_| Error::forbidden("the signature is not right"))
    }

    fn secret(&self) -> Result<&str> {
        let off = || Error::Specific(Code::Unrecognized, "registration by shared secret is off".into());
        self.settings.shared_secret.as_deref().filter(|secret| !secret.is_empty()).ok_or_else(off)
    }

    /// The authentication that registering asks for.
    #[must_use]
    pub fn uia(&self) -> &Uia {
        &self.uia
    }
}

fn in_use() -> Error {
    Error::Specific(Code::UserInUse, "this user name is taken".into())
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).ok()).collect()
}
