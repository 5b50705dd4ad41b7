//! What devices have left to give out, which every sync tells: in memory until it changes.
//!
//! Keys are given out and uploaded without taking a position, so instances tell each other by [`Whisper::Forget`].

use std::{collections::HashMap, sync::Arc};

use ruma::OneTimeKeyAlgorithm;
use storage::{Tx, one_time_keys};

use super::Keys;
use crate::{Context, Result, memory::Memory, notify::Whisper};

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
type OfUser = Arc<HashMap<String, (Supply, u64)>>;

/// Supplies in memory. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Supplies(Arc<Memory<i64, OfUser>>);

impl Supplies {
    /// Forget a user's supplies whenever any instance says they changed.
    pub(super) fn listening(cx: &Context) -> Self {
        let supplies = Arc::new(Memory::new(USERS_MAX));
        let listener = Arc::clone(&supplies);
        cx.notify.on_whisper(move |whisper| match whisper {
            Whisper::Forget(family, key) if family == FORGET_SUPPLY => {
                if let Ok(user_nid) = key.parse() {
                    listener.forget(&user_nid);
                }
            }
            Whisper::Missed => listener.forget_all(),
            _ => {}
        });
        let listener = Arc::clone(&supplies);
        cx.notify.on_change(move |change| change.device_users.iter().for_each(|nid| listener.forget(nid)));
        Self(supplies)
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
        if let Some(of_user) = self.supplies.0.get(&user_nid).filter(|_| self.cx.notify.hears_others())
            && let Some((supply, read_ms)) = of_user.get(device_id)
            && now_ms < read_ms.saturating_add(AGE_MAX_MS)
        {
            return Ok(supply.clone());
        }
        let moment = self.supplies.0.moment();
        let supply = read(&mut self.cx.store.read().await?, user_nid, device_id).await?;
        let mut devices = match self.supplies.0.get(&user_nid) {
            Some(devices) if devices.len() < DEVICES_MAX => HashMap::clone(&devices),
            _ => HashMap::new(),
        };
        devices.insert(device_id.to_owned(), (supply.clone(), now_ms));
        self.supplies.0.keep(moment, user_nid, Arc::new(devices));
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
