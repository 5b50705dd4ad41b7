//! How often somebody may do something: rates for users, devices, accounts and addresses.
//!
//! The generic cell rate algorithm: for each subject one number is kept, the time at which it would be even again. That is a
//! token bucket without the bucket: nothing needs filling, and what lies in the past can be thrown away.
//!
//! One instance counts in memory; several count together in Valkey, by one script a question. When Valkey is away,
//! what only annoys ([`Action::Message`] …) is let through and what guards an account ([`Action::Login`] …) is refused.

use std::{
    collections::HashMap,
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use fred::interfaces::LuaInterface as _;

use crate::{Context, Error, Result, user::User, valkey::Valkey};

/// Subjects counted in memory at once.
const SUBJECTS_MAX: usize = 200_000;
/// What is told to whoever cannot be counted.
const UNCOUNTED_RETRY: Duration = Duration::from_secs(5);

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Trying to log in, refresh or use a login token, by address.
    Login,
    /// Failing to, by account.
    LoginFailure,
    /// Registering, by address.
    Registration,
    /// Sending events and to-device messages, by user.
    Message,
    /// Joining, knocking, creating rooms, inviting; by user.
    Join,
    /// Uploading media, by user.
    Media,
    /// Anything else that costs, by device.
    Request,
}

impl Action {
    fn name(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::LoginFailure => "login_failure",
            Self::Registration => "registration",
            Self::Message => "message",
            Self::Join => "join",
            Self::Media => "media",
            Self::Request => "request",
        }
    }

    /// Whether it is let through when nobody can count.
    fn fails_open(self) -> bool {
        !matches!(self, Self::Login | Self::LoginFailure | Self::Registration)
    }
}

/// Who is counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A user.
    User(i64),
    /// A device of a user.
    Device(i64, String),
    /// A name somebody wants to log in as.
    Account(String),
    /// An address.
    Address(IpAddr),
}

impl Subject {
    /// As part of a key. Of an IPv6 address only the network counts: whoever has one has 2^64 addresses.
    fn key(&self) -> String {
        match self {
            Self::User(nid) => format!("u{nid}"),
            Self::Device(nid, device) => format!("d{nid}/{device}"),
            Self::Account(name) => format!("n{name}"),
            Self::Address(IpAddr::V4(address)) => format!("a{address}"),
            Self::Address(IpAddr::V6(address)) => match address.to_ipv4_mapped() {
                Some(address) => format!("a{address}"),
                None => format!("a{:x}", u128::from(*address) >> 64),
            },
        }
    }
}

/// A rate: so many at once, and so many a minute in the long run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// At once, after a pause.
    pub burst: u32,
    /// In the long run.
    pub per_minute: u32,
}

impl Rate {
    /// `burst` at once, `per_minute` in the long run.
    #[must_use]
    pub const fn new(burst: u32, per_minute: u32) -> Self {
        Self { burst, per_minute }
    }

    /// Microseconds one costs.
    fn cost_us(self) -> u64 {
        60_000_000 / u64::from(self.per_minute.max(1))
    }

    /// Microseconds one may be ahead.
    fn ahead_us(self) -> u64 {
        self.cost_us() * u64::from(self.burst.max(1))
    }
}

/// The rates. `is_off` lets everything through.
#[derive(Debug, Clone)]
pub struct Settings {
    /// No limits at all.
    pub is_off: bool,
    /// [`Action::Login`].
    pub login: Rate,
    /// [`Action::LoginFailure`].
    pub login_failure: Rate,
    /// [`Action::Registration`].
    pub registration: Rate,
    /// [`Action::Message`].
    pub message: Rate,
    /// [`Action::Join`].
    pub join: Rate,
    /// [`Action::Media`].
    pub media: Rate,
    /// [`Action::Request`].
    pub request: Rate,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            is_off: false,
            login: Rate::new(20, 30),
            login_failure: Rate::new(5, 6),
            registration: Rate::new(10, 6),
            message: Rate::new(60, 600),
            join: Rate::new(30, 30),
            media: Rate::new(60, 60),
            request: Rate::new(300, 1200),
        }
    }
}

impl Settings {
    fn rate(&self, action: Action) -> Rate {
        match action {
            Action::Login => self.login,
            Action::LoginFailure => self.login_failure,
            Action::Registration => self.registration,
            Action::Message => self.message,
            Action::Join => self.join,
            Action::Media => self.media,
            Action::Request => self.request,
        }
    }
}

/// Counts. Cheap to clone.
#[derive(Clone)]
pub struct Limits(Arc<Inner>);

struct Inner {
    cx: Context,
    settings: Settings,
    valkey: Option<Valkey>,
    /// When each subject is even again, in microseconds since 1970.
    even_us: Mutex<HashMap<String, u64>>,
}

impl fmt::Debug for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limits").field("settings", &self.0.settings).finish_non_exhaustive()
    }
}

/// `ARGV`: now, cost of one, how far ahead one may be, 1 to count and 0 to look; all in microseconds. Answers the wait.
const SCRIPT: &str = "
local now, cost, ahead, count = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local even = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now) + cost
if even - now > ahead then return even - now - ahead end
if count == '1' then
  redis.call('SET', KEYS[1], string.format('%.0f', even), 'PX', math.ceil((even - now) / 1000) + 1)
end
return 0";

impl Limits {
    /// On `cx`, counting together with other instances in `valkey` when there is one.
    #[must_use]
    pub fn new(cx: Context, settings: Settings, valkey: Option<Valkey>) -> Self {
        Self(Arc::new(Inner { cx, settings, valkey, even_us: Mutex::default() }))
    }

    /// Count one, or refuse.
    ///
    /// # Errors
    /// [`Error::Limited`].
    pub async fn take(&self, action: Action, subject: &Subject) -> Result<()> {
        self.ask(action, subject, true).await
    }

    /// Refuse if one more would be refused; count nothing.
    ///
    /// # Errors
    /// [`Error::Limited`].
    pub async fn check(&self, action: Action, subject: &Subject) -> Result<()> {
        self.ask(action, subject, false).await
    }

    /// Count something `user` does, unless they are free of limits.
    ///
    /// # Errors
    /// [`Error::Limited`].
    pub async fn take_for(&self, action: Action, user: &User) -> Result<()> {
        if !user.is_rate_limited {
            return Ok(());
        }
        let subject = match (action, &user.device_id) {
            (Action::Request, Some(device)) => Subject::Device(user.nid, device.to_string()),
            _ => Subject::User(user.nid),
        };
        self.ask(action, &subject, true).await
    }

    async fn ask(&self, action: Action, subject: &Subject, counts: bool) -> Result<()> {
        if self.0.settings.is_off {
            return Ok(());
        }
        let rate = self.0.settings.rate(action);
        let key = format!("{}:{}", action.name(), subject.key());
        let wait = match &self.0.valkey {
            Some(valkey) => self.0.ask_valkey(valkey, &key, rate, counts).await,
            None => self.0.ask_memory(key, rate, counts),
        };
        match wait {
            Some(Duration::ZERO) => Ok(()),
            Some(retry_after) => Err(Error::Limited { retry_after }),
            None if action.fails_open() => Ok(()),
            None => Err(Error::Limited { retry_after: UNCOUNTED_RETRY }),
        }
    }
}

impl Inner {
    fn now_us(&self) -> u64 {
        self.cx.clock.now_ms().saturating_mul(1000)
    }

    /// How long to wait; `None` when there is no room to count.
    fn ask_memory(&self, key: String, rate: Rate, counts: bool) -> Option<Duration> {
        let now_us = self.now_us();
        let mut even = self.even_us.lock().unwrap_or_else(PoisonError::into_inner);
        let before = even.get(&key).copied().unwrap_or(0).max(now_us);
        let after = before + rate.cost_us();
        if after - now_us > rate.ahead_us() {
            return Some(Duration::from_micros(after - now_us - rate.ahead_us()));
        }
        if counts {
            if even.len() >= SUBJECTS_MAX && !even.contains_key(&key) {
                even.retain(|_, even_us| *even_us > now_us);
                if even.len() >= SUBJECTS_MAX {
                    return None;
                }
            }
            even.insert(key, after);
        }
        Some(Duration::ZERO)
    }

    /// How long to wait; `None` when Valkey is away.
    async fn ask_valkey(&self, valkey: &Valkey, key: &str, rate: Rate, counts: bool) -> Option<Duration> {
        let arguments = vec![
            self.now_us().to_string(),
            rate.cost_us().to_string(),
            rate.ahead_us().to_string(),
            u8::from(counts).to_string(),
        ];
        if !valkey.is_there() {
            // Known to be away: nobody need wait to hear it again.
            return None;
        }
        let key = format!("{}rate:{key}", valkey.prefix());
        match valkey.client().eval::<u64, _, _, _>(SCRIPT, vec![key], arguments).await {
            Ok(wait_us) => Some(Duration::from_micros(wait_us)),
            Err(error) => {
                tracing::warn!(%error, "rates cannot be counted");
                None
            }
        }
    }
}
