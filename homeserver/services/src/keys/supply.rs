//! What devices have left to give out, which every sync tells: in memory until it changes.
//!
//! Keys are given out and uploaded without taking a position, so instances tell each other by [`Whisper::Forget`].

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use quick_cache::sync::Cache;
use ruma::OneTimeKeyAlgorithm;
use storage::{Tx, one_time_keys};

use super::Keys;
use crate::{Context, Result, notify::Whisper};

/// Users whose devices' supplies are remembered.
const USERS_MAX: usize = 20_000;
/// Devices of one user that are remembered; beyond it all are asked for again.
const DEVICES_MAX: usize = 100;
/// How long a supply is believed.
const AGE_MAX_MS: u64 = 5 * 60 * 1000;
/// Family of [`Whisper::Forget`]; its key is the user's number.
const FORGET_SUPPLY: &str = "one_time_keys";

/// What a device has left to give out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Supply {
    /// One-time keys by algorithm; `signed_curve25519` is always named.
    pub one_time: std::collections::BTreeMap<String, u64>,
    /// Algorithms whose fallback key nobody took yet.
    pub unused_fallback: Vec<String>,
}

/// Supplies of one user's devices, with the time each was read, milliseconds since 1970.
type OfUser = Arc<Mutex<HashMap<String, (Supply, u64)>>>;

/// Supplies in memory. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Supplies {
    known: Arc<Cache<i64, OfUser>>,
    /// Counts what was forgotten: what was read before a change must not be kept after it.
    forgotten: Arc<AtomicU64>,
}

impl Supplies {
    /// Forget a user's supplies whenever any instance says they changed.
    pub(super) fn listening(cx: &Context) -> Self {
        let supplies = Self { known: Arc::new(Cache::new(USERS_MAX)), forgotten: Arc::default() };
        let listener = supplies.clone();
        cx.notify.on_whisper(move |whisper| match whisper {
            Whisper::Forget(family, key) if family == FORGET_SUPPLY => {
                if let Ok(user_nid) = key.parse() {
                    listener.forget(user_nid);
                }
            }
            Whisper::Missed => {
                listener.forgotten.fetch_add(1, Ordering::AcqRel);
                listener.known.clear();
            }
            _ => {}
        });
        let listener = supplies.clone();
        cx.notify.on_change(move |change| {
            for user_nid in &change.device_users {
                listener.forget(*user_nid);
            }
        });
        supplies
    }

    fn forget(&self, user_nid: i64) {
        self.forgotten.fetch_add(1, Ordering::AcqRel);
        self.known.remove(&user_nid);
    }
}

impl Keys {
    /// What a device has left to give out. No statement while nothing changed.
    ///
    /// # Errors
    /// The database's.
    pub async fn supply(&self, user_nid: i64, device_id: &str) -> Result<Supply> {
        let now_ms = self.cx.clock.now_ms();
        // What a whisper would end is believed only while whispers of the others are heard.
        if let Some(of_user) = self.supplies.known.get(&user_nid).filter(|_| self.cx.notify.hears_others())
            && let Some((supply, read_ms)) = of_user.lock().unwrap_or_else(PoisonError::into_inner).get(device_id)
            && now_ms < read_ms.saturating_add(AGE_MAX_MS)
        {
            return Ok(supply.clone());
        }
        let forgotten = self.supplies.forgotten.load(Ordering::Acquire);
        let supply = read(&mut self.cx.store.read().await?, user_nid, device_id).await?;
        if self.supplies.forgotten.load(Ordering::Acquire) == forgotten {
            let of_user = self.supplies.known.get(&user_nid).unwrap_or_default();
            {
                let mut devices = of_user.lock().unwrap_or_else(PoisonError::into_inner);
                if devices.len() >= DEVICES_MAX {
                    devices.clear();
                }
                devices.insert(device_id.to_owned(), (supply.clone(), now_ms));
            }
            self.supplies.known.insert(user_nid, of_user);
            if self.supplies.forgotten.load(Ordering::Acquire) != forgotten {
                self.supplies.known.remove(&user_nid);
            }
        }
        Ok(supply)
    }

    /// Tell every instance that devices of these users have other keys left than before. Call it after the commit.
    pub(super) fn supplies_changed(&self, user_nids: impl IntoIterator<Item = i64>) {
        for user_nid in user_nids {
            self.cx.notify.whisper(&Whisper::Forget(FORGET_SUPPLY.to_owned(), user_nid.to_string()));
        }
    }
}

/// What the tables say that a device has left.
pub(super) async fn read(tx: &mut Tx, user_nid: i64, device_id: &str) -> Result<Supply> {
    let mut supply = Supply::default();
    supply.one_time.insert(OneTimeKeyAlgorithm::SignedCurve25519.to_string(), 0);
    for row in one_time_keys::supply(tx, user_nid, device_id).await? {
        if row.is_fallback {
            supply.unused_fallback.push(row.algorithm);
        } else {
            supply.one_time.insert(row.algorithm, u64::try_from(row.count).unwrap_or(0));
        }
    }
    Ok(supply)
}
