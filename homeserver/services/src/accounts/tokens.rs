//! Access tokens: giving them out, recognising them, ending them.
//!
//! Two kinds. Clients that can refresh get a JWT signed by us (15 minutes) with a refresh token (7 days); others get an opaque
//! `vc_…` that lasts until it is revoked. Both have a row in the database (under the hash of the opaque token, or of the JWT's
//! `jti`), so ending one is deleting a row; the signature lets us turn made-up JWTs away without asking the database.
//!
//! A token recognised once is remembered for [`REMEMBERED`]: no statement warm, one cold. Whoever ends a token whispers it
//! to all instances, which forget it at once. An instance that may have missed a whisper forgets everything, and one that cannot
//! hear the others remembers nothing; the memory's short life covers what is left: an instance that ended a token and was cut
//! off before it could say so.

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use ruma::{OwnedDeviceId, OwnedUserId, UserId};
use storage::{
    accounts, devices as device_rows,
    refresh_tokens::RefreshToken,
    server_secrets,
    tokens::{self as token_rows, Bearer, Token},
};

pub use super::appservice_tokens::{AppserviceIdentity, AppserviceTokens};
use super::{
    Masquerade, User,
    refresh::{RefreshTokens, Rotation, Successor},
    secrets::hash,
    signed::Signer,
};
use crate::{
    Context, Error, Result,
    error::Code,
    memory::{Memory, Moment},
    notify::Whisper,
    valkey::Valkey,
};

/// How long a recognised token is remembered.
const REMEMBERED: Duration = Duration::from_secs(60);
/// Tokens remembered at once.
const REMEMBERED_MAX: usize = 100_000;
/// No token of ours is longer, in bytes.
const TOKEN_BYTES_MAX: usize = 2048;
/// The longest device id taken, in bytes.
pub const DEVICE_ID_BYTES_MAX: usize = 255;
/// The longest device name taken, in characters.
pub const DEVICE_NAME_CHARS_MAX: usize = 100;
/// Letters of a device id we choose: 50 bits.
const DEVICE_ID_LEN: usize = 10;
/// Letters of an opaque token: 256 bits.
const SECRET_LEN: usize = 44;
/// Letters of a name that only must not come twice: 130 bits.
const NAME_LEN: usize = 22;
/// What remembered answers about accounts are called in [`Whisper::Forget`].
const FAMILY: &str = "account";

/// How long tokens last.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Of an access token that can be refreshed.
    pub access_lifetime: Duration,
    /// Of a refresh token.
    pub refresh_lifetime: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { access_lifetime: Duration::from_secs(15 * 60), refresh_lifetime: Duration::from_secs(7 * 24 * 3600) }
    }
}

/// On which device somebody logs in, and how.
#[derive(Debug, Clone, Default)]
pub struct NewSession {
    /// The device the client names; otherwise we choose.
    pub device_id: Option<OwnedDeviceId>,
    /// Its name, if it is new.
    pub display_name: Option<String>,
    /// The client can refresh.
    pub can_refresh: bool,
    /// From where.
    pub address: Option<IpAddr>,
    /// With which program.
    pub user_agent: Option<String>,
}

/// What a client gets when it has logged in.
#[derive(Debug, Clone)]
pub struct Session {
    /// Who.
    pub user_id: OwnedUserId,
    /// The device.
    pub device_id: OwnedDeviceId,
    /// The access token.
    pub access_token: String,
    /// The refresh token.
    pub refresh_token: Option<String>,
    /// How long the access token lasts.
    pub expires_in: Option<Duration>,
}

/// A recognised token.
#[derive(Debug, Clone)]
struct Remembered {
    user: User,
    until_ms: u64,
}

/// Access tokens. Cheap to clone.
#[derive(Clone)]
pub struct Tokens(Arc<Inner>);

struct Inner {
    cx: Context,
    settings: Settings,
    signer: Signer,
    refresh: RefreshTokens,
    appservices: Arc<dyn AppserviceTokens>,
    remembered: Memory<String, Remembered>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("settings", &self.0.settings).finish_non_exhaustive()
    }
}

impl Tokens {
    /// On `cx`, with the signing secret kept in the database.
    ///
    /// # Errors
    /// The database's.
    pub async fn start(
        cx: Context,
        settings: Settings,
        valkey: Option<Valkey>,
        appservices: Arc<dyn AppserviceTokens>,
    ) -> Result<Self> {
        let mut tx = cx.store.begin().await?;
        let secret = server_secrets::get_or_put(&mut tx, "access_tokens", &cx.randomness.bytes::<32>()).await?;
        tx.commit().await?;
        let tokens = Self(Arc::new(Inner {
            refresh: RefreshTokens::new(cx.clone(), valkey),
            settings,
            signer: Signer::new(cx.server_name.as_str(), &secret),
            appservices,
            remembered: Memory::new(REMEMBERED_MAX),
            cx,
        }));
        let weak = Arc::downgrade(&tokens.0);
        tokens.0.cx.notify.on_whisper(move |whisper| {
            if let Some(inner) = weak.upgrade() {
                inner.hear(whisper);
            }
        });
        Ok(tokens)
    }

    /// The application services.
    #[must_use]
    pub fn appservices(&self) -> &dyn AppserviceTokens {
        &*self.0.appservices
    }

    /// Whom a token belongs to. See [`super::Accounts::authenticate`].
    ///
    /// # Errors
    /// As there.
    pub async fn authenticate(&self, token: &str, masquerade: &Masquerade) -> Result<User> {
        const UNKNOWN: Error = Error::UnknownToken { soft_logout: false };
        if token.is_empty() || token.len() > TOKEN_BYTES_MAX {
            return Err(UNKNOWN);
        }
        if let Some(identity) = self.appservices().by_token(token) {
            return self.authenticate_appservice(&identity, hash(token), masquerade).await;
        }
        let hash = if token.starts_with("vc_") { hash(token) } else { self.0.signer.key_of(token).ok_or(UNKNOWN)? };
        let now_ms = self.0.cx.clock.now_ms();
        if let Some(known) = self.remembered(&hash, now_ms) {
            return Ok(known);
        }
        let moment = self.0.remembered.moment();
        let mut tx = self.0.cx.store.read().await?;
        let bearer = token_rows::bearer(&mut tx, &hash).await?;
        drop(tx);
        let bearer = bearer.ok_or(UNKNOWN)?;
        let expires_ms = bearer.expires_ms.map_or(u64::MAX, i64::cast_unsigned);
        if expires_ms <= now_ms {
            return Err(Error::UnknownToken { soft_logout: true });
        }
        if let Some(replaced) = &bearer.replaces {
            self.first_use(&hash, replaced).await?;
        }
        let user = user_of(bearer, &hash)?;
        let until_ms = expires_ms.min(now_ms.saturating_add(ms(REMEMBERED)));
        self.remember(moment, hash, Remembered { user: user.clone(), until_ms });
        Ok(user)
    }

    fn remembered(&self, key: &str, now_ms: u64) -> Option<User> {
        let known = self.0.remembered.get(key).filter(|known| known.until_ms > now_ms)?;
        self.0.cx.notify.hears_others().then_some(known.user)
    }

    /// While other instances are not heard nothing is remembered: they could not tell that it is over.
    fn remember(&self, moment: Moment, key: String, known: Remembered) {
        if self.0.cx.notify.hears_others() {
            self.0.remembered.keep(moment, key, known);
        }
    }

    async fn authenticate_appservice(
        &self,
        identity: &AppserviceIdentity,
        token_hash: String,
        masquerade: &Masquerade,
    ) -> Result<User> {
        let device = masquerade.device_id.as_deref().unwrap_or_default();
        let name = masquerade.user_id.as_deref().unwrap_or(identity.sender.as_str());
        let key = format!("{token_hash} {name} {device}");
        let now_ms = self.0.cx.clock.now_ms();
        if let Some(known) = self.remembered(&key, now_ms) {
            return Ok(known);
        }
        let moment = self.0.remembered.moment();
        let user_id = UserId::parse(name).map_err(|error| Error::InvalidParam(format!("user_id: {error}")))?;
        let is_sender = user_id == identity.sender;
        let may = self.0.cx.is_local(&user_id) && (is_sender || self.appservices().may_be(&identity.id, &user_id));
        if !may {
            return Err(Error::forbidden("the application service may not act as this user"));
        }
        let mut tx = self.0.cx.store.read().await?;
        let account = accounts::by_name(&mut tx, user_id.as_str()).await?;
        let has_device = match (&account, device) {
            (_, "") => true,
            (Some(account), device) => device_rows::one(&mut tx, account.user_nid, device).await?.is_some(),
            (None, _) => false,
        };
        drop(tx);
        let is_gone = account.as_ref().is_some_and(|account| account.deactivated_ms.is_some());
        if is_gone || (account.is_none() && !is_sender) {
            return Err(Error::forbidden("the application service has not registered this user"));
        }
        if !has_device {
            return Err(Error::Specific(Code::UnknownDevice, "the user has no such device".into()));
        }
        let nid = match &account {
            Some(account) => account.user_nid,
            None => self.0.cx.numbers.user(&user_id).await?,
        };
        let user = User {
            user_id,
            nid,
            device_id: masquerade.device_id.as_deref().map(OwnedDeviceId::from),
            token_hash: token_hash.into(),
            appservice: Some(Arc::clone(&identity.id)),
            is_admin: account.as_ref().is_some_and(|account| account.is_admin),
            is_locked: account.as_ref().is_some_and(|account| account.is_locked),
            is_suspended: account.as_ref().is_some_and(|account| account.is_suspended),
            is_guest: false,
            is_rate_limited: identity.is_rate_limited,
        };
        let until_ms = now_ms.saturating_add(ms(REMEMBERED));
        self.remember(moment, key, Remembered { user: user.clone(), until_ms });
        Ok(user)
    }

    /// Give `user` an access token on a device, new or not. What the device had before ends.
    ///
    /// # Errors
    /// [`Error::InvalidParam`] for a device id or name that is too long.
    pub async fn open(&self, user_nid: i64, user_id: &UserId, new: NewSession) -> Result<Session> {
        let cx = &self.0.cx;
        check_device(new.device_id.as_ref(), new.display_name.as_deref())?;
        let device_id = new.device_id.unwrap_or_else(|| cx.randomness.letters(DEVICE_ID_LEN).to_uppercase().into());
        let now_ms = cx.clock.now_ms().cast_signed();
        let (access_token, access_hash, expires_in) = if new.can_refresh {
            let name = cx.randomness.letters(NAME_LEN);
            let token = self.0.sign(user_id.as_str(), device_id.as_str(), &name)?;
            (token, hash(&name), Some(self.0.settings.access_lifetime))
        } else {
            let token = format!("vc_{}", cx.randomness.letters(SECRET_LEN));
            let hash = hash(&token);
            (token, hash, None)
        };
        let row = device_rows::Device {
            user_nid,
            device_id: device_id.to_string(),
            display_name: new.display_name,
            created_ms: now_ms,
            last_seen_ms: Some(now_ms),
            last_seen_ip: new.address.map(|address| address.to_string()),
            last_seen_agent: new.user_agent.map(|agent| shortened(&agent)),
        };
        let mut tx = cx.store.begin().await?;
        let is_new = device_rows::create(&mut tx, &row).await?;
        let ended = if is_new {
            Vec::new()
        } else {
            token_rows::delete_of_devices(&mut tx, user_nid, std::slice::from_ref(&row.device_id)).await?
        };
        let token = Token {
            hash: access_hash.clone(),
            user_nid,
            device_id: Some(row.device_id.clone()),
            created_ms: now_ms,
            expires_ms: expires_in.map(|lifetime| now_ms.saturating_add(ms(lifetime).cast_signed())),
            replaces: None,
        };
        token_rows::put(&mut tx, &token).await?;
        tx.commit().await?;
        if !is_new {
            self.0.refresh.forget_devices(user_nid, std::slice::from_ref(&row.device_id)).await?;
            self.end(ended);
        }
        let refresh_token = match expires_in {
            Some(_) => Some(self.first_refresh_token(user_nid, row.device_id, access_hash).await?),
            None => None,
        };
        Ok(Session { user_id: user_id.to_owned(), device_id, access_token, refresh_token, expires_in })
    }

    async fn first_refresh_token(&self, user_nid: i64, device_id: String, access_hash: String) -> Result<String> {
        let cx = &self.0.cx;
        let secret = format!("vcr_{}", cx.randomness.letters(SECRET_LEN));
        let lifetime_ms = ms(self.0.settings.refresh_lifetime).cast_signed();
        let token = RefreshToken {
            hash: hash(&secret),
            family: cx.randomness.letters(NAME_LEN),
            parent: None,
            user_nid,
            device_id,
            access_hash,
            is_retired: false,
            expires_ms: cx.clock.now_ms().cast_signed().saturating_add(lifetime_ms),
        };
        self.0.refresh.put(&token, lifetime_ms).await?;
        Ok(secret)
    }

    /// Renew an access token: the new one, the new refresh token, how long the access token lasts.
    ///
    /// # Errors
    /// [`Error::UnknownToken`]; reuse also ends everything that came from the same login.
    pub async fn refresh(&self, refresh_token: &str) -> Result<(String, String, Duration)> {
        const UNKNOWN: Error = Error::UnknownToken { soft_logout: false };
        if !refresh_token.starts_with("vcr_") || refresh_token.len() > TOKEN_BYTES_MAX {
            return Err(UNKNOWN);
        }
        let cx = &self.0.cx;
        let old = hash(refresh_token);
        let (user_nid, device_id) = self.0.refresh.owner(&old).await?.ok_or(UNKNOWN)?;
        let secret = format!("vcr_{}", cx.randomness.letters(SECRET_LEN));
        let name = cx.randomness.letters(NAME_LEN);
        let access_token = self.renewed(user_nid, &device_id, &old, &name).await?;
        let (secret_hash, access_hash) = (hash(&secret), hash(&name));
        let lifetime_ms = ms(self.0.settings.refresh_lifetime).cast_signed();
        let next = Successor { hash: &secret_hash, access_hash: &access_hash, lifetime_ms };
        match self.0.refresh.rotate(&old, &next).await? {
            Rotation::Done { ended } => {
                self.delete(ended).await?;
                Ok((access_token, secret, self.0.settings.access_lifetime))
            }
            Rotation::Reused { mut ended } => {
                tracing::warn!(user_nid, "a refresh token came twice; its login ends");
                ended.push(access_hash);
                self.delete(ended).await?;
                // The device is still there: logging in again gets it back.
                Err(Error::UnknownToken { soft_logout: true })
            }
            Rotation::Unknown => {
                self.delete(vec![access_hash]).await?;
                Err(UNKNOWN)
            }
        }
    }

    /// Write the access token that a renewal gives; `replaced` is the refresh token it was got with.
    async fn renewed(&self, user_nid: i64, device_id: &str, replaced: &str, name: &str) -> Result<String> {
        const UNKNOWN: Error = Error::UnknownToken { soft_logout: false };
        let cx = &self.0.cx;
        let names = cx.numbers.user_names(&[user_nid]).await?;
        let access_token = self.0.sign(names.get(&user_nid).ok_or(UNKNOWN)?, device_id, name)?;
        let now_ms = cx.clock.now_ms().cast_signed();
        let token = Token {
            hash: hash(name),
            user_nid,
            device_id: Some(device_id.to_owned()),
            created_ms: now_ms,
            expires_ms: Some(now_ms.saturating_add(ms(self.0.settings.access_lifetime).cast_signed())),
            replaces: Some(replaced.to_owned()),
        };
        let mut tx = cx.store.begin().await?;
        if device_rows::one(&mut tx, user_nid, device_id).await?.is_none() {
            return Err(UNKNOWN);
        }
        token_rows::put(&mut tx, &token).await?;
        tx.commit().await?;
        Ok(access_token)
    }

    /// An access token got by renewal is used for the first time: what it replaces ends.
    async fn first_use(&self, hash: &str, replaced: &str) -> Result<()> {
        let before = self.0.refresh.retire(replaced).await?;
        let mut tx = self.0.cx.store.begin().await?;
        token_rows::used(&mut tx, hash).await?;
        if let Some(before) = &before {
            token_rows::delete(&mut tx, std::slice::from_ref(before)).await?;
        }
        tx.commit().await?;
        self.end(before.into_iter().collect());
        Ok(())
    }

    async fn delete(&self, hashes: Vec<String>) -> Result<()> {
        if hashes.is_empty() {
            return Ok(());
        }
        let mut tx = self.0.cx.store.begin().await?;
        token_rows::delete(&mut tx, &hashes).await?;
        tx.commit().await?;
        self.end(hashes);
        Ok(())
    }

    /// Tell all instances that these tokens (hashes), already deleted, are over, and forget the refresh tokens of these devices.
    ///
    /// # Errors
    /// Valkey's or the database's.
    pub async fn ended_with_devices(&self, user_nid: i64, device_ids: &[String], hashes: Vec<String>) -> Result<()> {
        self.end(hashes);
        self.0.refresh.forget_devices(user_nid, device_ids).await
    }

    /// Tell all instances that these tokens (hashes), all a user had and already deleted, are over, and forget the user's
    /// refresh tokens.
    ///
    /// # Errors
    /// Valkey's or the database's.
    pub async fn ended_with_user(&self, user_nid: i64, user_id: &UserId, hashes: Vec<String>) -> Result<()> {
        self.end(hashes);
        self.account_changed(user_id);
        self.0.refresh.forget_user(user_nid).await
    }

    /// What is remembered of this account no longer holds.
    pub fn account_changed(&self, user_id: &UserId) {
        self.0.cx.notify.whisper(&Whisper::Forget(FAMILY.to_owned(), user_id.to_string()));
    }

    fn end(&self, hashes: Vec<String>) {
        if !hashes.is_empty() {
            self.0.cx.notify.whisper(&Whisper::Revoked(hashes));
        }
    }

    /// Delete the rows of tokens that nobody can use or be told about any more.
    ///
    /// # Errors
    /// The database's.
    pub async fn sweep(&self) -> Result<()> {
        let now_ms = self.0.cx.clock.now_ms();
        // An expired access token is remembered as such for as long as it could have been refreshed.
        let before_ms = now_ms.saturating_sub(ms(self.0.settings.refresh_lifetime));
        let mut tx = self.0.cx.store.begin().await?;
        token_rows::sweep(&mut tx, before_ms.cast_signed()).await?;
        storage::refresh_tokens::sweep(&mut tx, now_ms.cast_signed()).await?;
        tx.commit().await?;
        Ok(())
    }
}

impl Inner {
    fn sign(&self, user_id: &str, device_id: &str, name: &str) -> Result<String> {
        self.signer.sign(user_id, device_id, name, self.cx.clock.now_ms(), self.settings.access_lifetime)
    }

    fn hear(&self, whisper: &Whisper) {
        match whisper {
            Whisper::Revoked(hashes) => hashes.iter().for_each(|hash| self.remembered.forget(hash)),
            Whisper::Forget(family, user_id) if family == FAMILY => {
                self.remembered.forget_where(|_, known| known.user.user_id == *user_id);
            }
            Whisper::Missed => self.remembered.forget_all(),
            _ => {}
        }
    }
}

/// Refuse device ids and names nobody could mean.
///
/// # Errors
/// [`Error::InvalidParam`].
pub fn check_device(device_id: Option<&OwnedDeviceId>, display_name: Option<&str>) -> Result<()> {
    if device_id.is_some_and(|id| id.as_str().is_empty() || id.as_str().len() > DEVICE_ID_BYTES_MAX) {
        return Err(Error::InvalidParam(format!("a device id has 1 to {DEVICE_ID_BYTES_MAX} bytes")));
    }
    if display_name.is_some_and(|name| name.chars().count() > DEVICE_NAME_CHARS_MAX) {
        return Err(Error::InvalidParam(format!("a device name has at most {DEVICE_NAME_CHARS_MAX} characters")));
    }
    Ok(())
}

/// A `User-Agent` as we keep it.
#[must_use]
pub fn shortened(agent: &str) -> String {
    const AGENT_CHARS_MAX: usize = 200;
    agent.chars().take(AGENT_CHARS_MAX).collect()
}

fn user_of(bearer: Bearer, hash: &str) -> Result<User> {
    let user_id = UserId::parse(bearer.user_id).map_err(Error::internal)?;
    Ok(User {
        user_id,
        nid: bearer.user_nid,
        device_id: bearer.device_id.map(OwnedDeviceId::from),
        token_hash: hash.into(),
        appservice: None,
        is_admin: bearer.is_admin,
        is_locked: bearer.is_locked,
        is_suspended: bearer.is_suspended,
        is_guest: bearer.is_guest,
        is_rate_limited: true,
    })
}

/// A duration in milliseconds.
fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
