//! How reaching other servers goes: who failed, and when to ask again.
//!
//! Only failing servers are held in memory; all that answer cost nothing. A server that asks us something is up again. Several
//! instances tell each other of failures and recoveries, for another may be the one that delivers.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use ruma::{OwnedServerName, ServerName};
use storage::destinations;
use tokio::sync::watch;

use crate::{Context, Result, notify::Whisper};

/// Family of [`Whisper::Forget`] for the health of a server; its key is the server's name.
const FORGET_HEALTH: &str = "server health";

/// Pause after the first failure; doubled with each further one.
const PAUSE_FIRST_MS: u64 = 2_000;
/// Longest pause.
const PAUSE_MOST_MS: u64 = 3_600_000;
/// Failing servers held in memory. Beyond it new failures are not remembered.
const FAILING_MAX: usize = 50_000;

/// A server that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failing {
    /// Not before this time (ms since 1970) is it asked again.
    pub retry_at_ms: u64,
    /// Failures in a row.
    pub fails: u32,
    /// When it last answered, ms; 0 for never.
    pub last_ok_ms: u64,
}

impl From<&destinations::Health> for Failing {
    fn from(row: &destinations::Health) -> Self {
        let number = |value: i64| u64::try_from(value).unwrap_or(0);
        Self {
            retry_at_ms: number(row.retry_at),
            fails: u32::try_from(row.fails).unwrap_or(u32::MAX),
            last_ok_ms: number(row.last_ok),
        }
    }
}

/// Who failed. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Health {
    cx: Context,
    failing: Arc<Mutex<HashMap<OwnedServerName, Failing>>>,
    recovered: watch::Sender<u64>,
}

impl Health {
    /// As stored by the last run.
    ///
    /// # Errors
    /// The database's.
    pub async fn load(cx: Context) -> Result<Self> {
        let health = Self { cx, failing: Arc::default(), recovered: watch::Sender::new(0) };
        health.reload_all().await?;
        if !health.cx.store.is_embedded() {
            health.listen();
        }
        Ok(health)
    }

    /// Hear what other instances noticed.
    fn listen(&self) {
        let weak = Arc::downgrade(&self.failing);
        let (cx, recovered) = (self.cx.clone(), self.recovered.clone());
        self.cx.notify.on_whisper(move |whisper| {
            let one = match whisper {
                Whisper::Forget(family, server) if family == FORGET_HEALTH => {
                    match OwnedServerName::try_from(&**server) {
                        Ok(server) => Some(server),
                        Err(_) => return,
                    }
                }
                Whisper::Missed => None,
                _ => return,
            };
            let Some(failing) = weak.upgrade() else { return };
            let health = Self { cx: cx.clone(), failing, recovered: recovered.clone() };
            tokio::spawn(async move {
                let read = match &one {
                    Some(server) => health.reload(server).await,
                    None => health.reload_all().await,
                };
                if let Err(error) = read {
                    tracing::warn!(%error, "the health of destinations cannot be read");
                }
            });
        });
    }

    /// Read anew who fails.
    async fn reload_all(&self) -> Result<()> {
        let mut failing = HashMap::new();
        for row in destinations::failing(&mut self.cx.store.read().await?).await? {
            if failing.len() >= FAILING_MAX {
                break;
            }
            if let Ok(server) = OwnedServerName::try_from(row.server.as_str()) {
                failing.insert(server, Failing::from(&row));
            }
        }
        let mut all = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        let has_recovered = all.keys().any(|server| !failing.contains_key(server));
        *all = failing;
        drop(all);
        if has_recovered {
            self.recovered.send_modify(|count| *count += 1);
        }
        Ok(())
    }

    /// Read anew how reaching `server` goes.
    async fn reload(&self, server: &ServerName) -> Result<()> {
        let row = destinations::health_of(&mut self.cx.store.read().await?, server.as_str()).await?;
        let mut all = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        match row {
            Some(row) if all.len() < FAILING_MAX => drop(all.insert(server.to_owned(), Failing::from(&row))),
            Some(_) => {}
            None => {
                if all.remove(server).is_some() {
                    self.recovered.send_modify(|count| *count += 1);
                }
            }
        }
        Ok(())
    }

    /// What is known against `server`; `None` when all is well.
    #[must_use]
    pub fn of(&self, server: &ServerName) -> Option<Failing> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner).get(server).copied()
    }

    /// How long to leave `server` alone, in ms; 0 when it may be asked.
    #[must_use]
    pub fn pause_ms(&self, server: &ServerName) -> u64 {
        self.of(server).map_or(0, |failing| failing.retry_at_ms.saturating_sub(self.cx.clock.now_ms()))
    }

    /// `server` answered.
    pub async fn succeeded(&self, server: &ServerName) {
        let was_failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner).remove(server).is_some();
        if was_failing {
            self.store(server, Failing { retry_at_ms: 0, fails: 0, last_ok_ms: self.cx.clock.now_ms() }).await;
            self.recovered.send_modify(|count| *count += 1);
        }
    }

    /// `server` did not answer, or with an error that says it cannot serve now.
    pub async fn failed(&self, server: &ServerName) {
        let now = self.cx.clock.now_ms();
        let failing = {
            let mut all = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
            let before = all.get(server).copied();
            // Requests that were under way together fail together: that is one failure.
            if before.is_some_and(|failing| failing.retry_at_ms > now) || all.len() >= FAILING_MAX {
                return;
            }
            let fails = before.map_or(0, |failing| failing.fails).saturating_add(1);
            let pause_ms = (PAUSE_FIRST_MS << (fails - 1).min(16)).min(PAUSE_MOST_MS);
            let jitter_ms = self.cx.randomness.below(pause_ms / 4 + 1);
            let last_ok_ms = before.map_or(0, |failing| failing.last_ok_ms);
            let failing = Failing { retry_at_ms: now + pause_ms + jitter_ms, fails, last_ok_ms };
            all.insert(server.to_owned(), failing);
            failing
        };
        self.store(server, failing).await;
    }

    /// Counts servers that came back, for whoever waits for one.
    #[must_use]
    pub fn recoveries(&self) -> watch::Receiver<u64> {
        self.recovered.subscribe()
    }

    /// Keep it for the next run. A failure to store costs a needless attempt then, nothing more.
    async fn store(&self, server: &ServerName, failing: Failing) {
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let row = destinations::Health {
            server: server.to_string(),
            retry_at: number(failing.retry_at_ms),
            fails: failing.fails.into(),
            last_ok: number(failing.last_ok_ms),
        };
        let stored = async {
            let mut tx = self.cx.store.begin().await?;
            destinations::set_health(&mut tx, &row).await?;
            tx.commit().await
        };
        match stored.await {
            Ok(_) if !self.cx.store.is_embedded() => {
                self.cx.notify.whisper(&Whisper::Forget(FORGET_HEALTH.to_owned(), server.to_string()));
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "the health of a destination was not stored"),
        }
    }
}
