//! Passwords: Argon2id in PHC form, made and checked on blocking threads, as many at once as there are cores.
//!
//! A check costs the same whether the account exists or not, so that time does not tell names.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use argon2::{
    Algorithm, Argon2, Params, PasswordVerifier as _, Version,
    password_hash::{PasswordHasher as _, phc::PasswordHash},
};
use tokio::sync::{OnceCell, Semaphore};

use crate::{Error, Result, clock::Randomness, error::Code};

/// The longest password taken, in bytes: hashing more is work for nothing.
pub const PASSWORD_BYTES_MAX: usize = 512;
/// Logins that may wait for a core.
const WAITING_MAX: usize = 256;
/// What those beyond are told to wait.
const BUSY_RETRY: Duration = Duration::from_secs(2);

/// The price of a password. The defaults are OWASP's.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Memory for one hash, in KiB.
    pub memory_kib: u32,
    /// Passes over that memory.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
    /// The shortest password that may be set, in characters.
    pub len_min: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { memory_kib: 19_456, passes: 2, lanes: 1, len_min: 8 }
    }
}

/// What a check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Not the password.
    Wrong,
    /// The password.
    Right,
    /// The password, kept at an outdated price: hash it again.
    RightButOutdated,
}

/// Makes and checks password hashes. Cheap to clone.
#[derive(Clone)]
pub struct Passwords(Arc<Inner>);

struct Inner {
    argon2: Argon2<'static>,
    len_min: usize,
    cores: Semaphore,
    waiting: AtomicUsize,
    randomness: Randomness,
    /// Checked when there is no account; made when it is first needed, as it costs what a login does.
    decoy: OnceCell<String>,
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passwords").field("params", self.0.argon2.params()).finish_non_exhaustive()
    }
}

impl Passwords {
    /// At the price `settings` ask.
    ///
    /// # Errors
    /// [`Error::Internal`] when Argon2 knows no such price.
    pub fn start(settings: &Settings, randomness: Randomness) -> Result<Self> {
        let params = Params::new(settings.memory_kib, settings.passes, settings.lanes, None)
            .map_err(|error| Error::Internal(format!("password settings: {error}")))?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Ok(Self(Arc::new(Inner {
            argon2,
            len_min: settings.len_min,
            cores: Semaphore::new(cores),
            waiting: AtomicUsize::new(0),
            randomness,
            decoy: OnceCell::new(),
        })))
    }

    /// Refuse what is too short or too long to become a password.
    ///
    /// # Errors
    /// `M_WEAK_PASSWORD`, [`Error::InvalidParam`].
    pub fn check_strength(&self, password: &str) -> Result<()> {
        if password.len() > PASSWORD_BYTES_MAX {
            return Err(Error::InvalidParam(format!("a password has at most {PASSWORD_BYTES_MAX} bytes")));
        }
        if password.chars().count() < self.0.len_min {
            let words = format!("a password has at least {} characters", self.0.len_min);
            return Err(Error::Specific(Code::WeakPassword, words));
        }
        Ok(())
    }

    /// The hash to keep for `password`.
    ///
    /// # Errors
    /// [`Error::Limited`] when too many wait, [`Error::InvalidParam`] when it is too long.
    pub async fn hash(&self, password: &str) -> Result<String> {
        if password.len() > PASSWORD_BYTES_MAX {
            return Err(Error::InvalidParam(format!("a password has at most {PASSWORD_BYTES_MAX} bytes")));
        }
        let salt = self.0.randomness.bytes::<16>();
        let (argon2, password) = (self.0.argon2.clone(), password.to_owned());
        self.on_a_core(move || hash_now(&argon2, password.as_bytes(), &salt)).await?
    }

    /// Compare `password` with what is kept; `None` is an account that has none, or no account.
    ///
    /// # Errors
    /// [`Error::Limited`] when too many wait.
    pub async fn verify(&self, password: &str, kept: Option<&str>) -> Result<Verdict> {
        let is_possible = kept.is_some() && password.len() <= PASSWORD_BYTES_MAX;
        let kept = match kept {
            Some(kept) => kept.to_owned(),
            None => self.0.decoy.get_or_try_init(|| self.hash("nobody's password")).await?.clone(),
        };
        let password: String = if password.len() <= PASSWORD_BYTES_MAX { password.to_owned() } else { String::new() };
        let argon2 = self.0.argon2.clone();
        let verdict = self
            .on_a_core(move || {
                let Ok(hash) = PasswordHash::new(&kept) else { return Verdict::Wrong };
                if argon2.verify_password(password.as_bytes(), &hash).is_err() {
                    return Verdict::Wrong;
                }
                let same_price = Params::try_from(&hash).is_ok_and(|params| {
                    let own = argon2.params();
                    (params.m_cost(), params.t_cost(), params.p_cost()) == (own.m_cost(), own.t_cost(), own.p_cost())
                });
                let is_current = same_price && hash.algorithm.as_str() == Algorithm::Argon2id.as_str();
                if is_current { Verdict::Right } else { Verdict::RightButOutdated }
            })
            .await?;
        Ok(if is_possible { verdict } else { Verdict::Wrong })
    }

    async fn on_a_core<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let waiting = Waiting::join(&self.0.waiting)?;
        let permit = self.0.cores.acquire().await.map_err(|_| Error::Stopping)?;
        drop(waiting);
        let result = tokio::task::spawn_blocking(work).await.map_err(Error::internal);
        drop(permit);
        result
    }
}

/// A place in the queue for a core.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn join(count: &'a AtomicUsize) -> Result<Self> {
        let place = Self(count);
        if count.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
            return Err(Error::Limited { retry_after: BUSY_RETRY });
        }
        Ok(place)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn hash_now(argon2: &Argon2<'_>, password: &[u8], salt: &[u8]) -> Result<String> {
    argon2.hash_password_with_salt(password, salt).map(|hash| hash.to_string()).map_err(Error::internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cheap(passes: u32) -> Settings {
        Settings { memory_kib: 64, passes, lanes: 1, len_min: 8 }
    }

    #[tokio::test]
    async fn a_hash_is_salted_and_names_its_price() {
        let passwords = Passwords::start(&cheap(1), Randomness::seeded(1)).unwrap();

        let first = passwords.hash("correct horse").await.unwrap();
        let second = passwords.hash("correct horse").await.unwrap();

        assert!(first.starts_with("$argon2id$v=19$m=64,t=1,p=1$"), "{first}");
        assert_ne!(first, second);
        assert_eq!(passwords.verify("correct horse", Some(&first)).await.unwrap(), Verdict::Right);
        assert_eq!(passwords.verify("correct horsf", Some(&first)).await.unwrap(), Verdict::Wrong);
    }

    #[tokio::test]
    async fn a_hash_of_another_price_is_right_but_outdated() {
        let old = Passwords::start(&cheap(1), Randomness::seeded(1)).unwrap();
        let new = Passwords::start(&cheap(2), Randomness::seeded(2)).unwrap();

        let kept = old.hash("correct horse").await.unwrap();

        assert_eq!(new.verify("correct horse", Some(&kept)).await.unwrap(), Verdict::RightButOutdated);
    }

    #[tokio::test]
    async fn nobody_and_garbage_never_verify() {
        let passwords = Passwords::start(&cheap(1), Randomness::seeded(1)).unwrap();
        let long = "x".repeat(PASSWORD_BYTES_MAX + 1);

        assert_eq!(passwords.verify("nobody's password", None).await.unwrap(), Verdict::Wrong);
        assert_eq!(passwords.verify("", Some("not a hash")).await.unwrap(), Verdict::Wrong);
        let empty = passwords.hash("").await.unwrap();
        assert_eq!(passwords.verify(&long, Some(&empty)).await.unwrap(), Verdict::Wrong);
        assert!(matches!(passwords.hash(&long).await, Err(Error::InvalidParam(_))));
    }
}
