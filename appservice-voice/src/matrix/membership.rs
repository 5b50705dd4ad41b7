//! Which call memberships should stand in rooms, and the worker that makes it so.
//!
//! A device that is in a call has an `org.matrix.msc3401.call.member` event, one that left has `{}`. The service writes
//! them as the user (masquerading) and only for users of its own homeserver; a membership that a client wrote itself is
//! left alone while the device is in, and cleared when it is gone.
//!
//! Invariants:
//! * For one device in one room, requests never overlap: only the last wish counts, and it is asked for until granted or
//!   refused. So nothing queues up: one wish per device.
//! * Before a membership is written, the device stands in the file of live memberships. After a crash the next start
//!   clears what stands there.

use std::{
    collections::{BTreeMap, HashSet},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::{sync::Notify, task::JoinSet};
use voice_protocol::events::{self, CallMember};

use super::client::{Client, Fault};

/// Requests under way at once.
const REQUESTS_MAX: usize = 8;
/// Attempts before a wish is given up; about four minutes with the waits below.
const ATTEMPTS_MAX: u32 = 16;
const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(20);

/// A device in a room.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Seat {
    pub room_id: String,
    pub user_id: String,
    pub device_id: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Present { since_ms: u64 },
    Absent,
}

#[derive(Debug)]
struct Pending {
    wish: Wish,
    attempts: u32,
    /// Not before this, by the runtime's clock.
    not_before: tokio::time::Instant,
}

#[derive(Default)]
struct State {
    pending: BTreeMap<Seat, Pending>,
    under_way: HashSet<Seat>,
    /// Devices in a call, whose memberships are to be cleared when they are gone: the content of the file. With the time
    /// when we wrote them (milliseconds since 1970), 0 for those that are not ours to renew.
    live: BTreeMap<Seat, u64>,
    closing: bool,
}

/// The wishes, shared by those who have them and the worker.
pub struct Memberships {
    state: Mutex<State>,
    changed: Notify,
    file: PathBuf,
    service_url: String,
}

const FILE_NAME: &str = "voice-live-memberships.json";

impl Memberships {
    /// Reads the file a former run left; whoever stands in it is wished absent.
    ///
    /// # Errors
    /// When the folder cannot be made or the file cannot be read. A file that is not ours to understand is an error too:
    /// better not to start than to leave people in calls for ever.
    pub fn open(data_dir: &std::path::Path, service_url: &str) -> anyhow::Result<Arc<Self>> {
        std::fs::create_dir_all(data_dir)?;
        let file = data_dir.join(FILE_NAME);
        let left_over: Vec<Seat> = match std::fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        let memberships =
            Self { state: Mutex::default(), changed: Notify::new(), file, service_url: service_url.to_owned() };
        for seat in left_over {
            memberships.lock().live.insert(seat.clone(), 0);
            memberships.wish(seat, Wish::Absent);
        }
        Ok(Arc::new(memberships))
    }

    /// The device is in; `already_written` when a membership that its client wrote stands in the room.
    pub fn enter(&self, seat: Seat, already_written: bool, now_ms: u64) {
        {
            let mut state = self.lock();
            // What a client wrote is for the client to renew.
            state.live.insert(seat.clone(), if already_written { 0 } else { now_ms });
            self.save(&state);
            // What stands in the room may be about to be cleared by a wish from before.
            let unsettled = state.pending.contains_key(&seat) || state.under_way.contains(&seat);
            if already_written && !unsettled {
                return;
            }
        }
        self.wish(seat, Wish::Present { since_ms: now_ms });
    }

    /// The device is gone.
    pub fn exit(&self, seat: Seat) {
        self.wish(seat, Wish::Absent);
    }

    /// Memberships lapse by themselves after some hours; write those again that are half way there.
    pub fn renew(&self, now_ms: u64) {
        let due: Vec<Seat> = {
            let mut state = self.lock();
            let old = |at_ms: &u64| *at_ms > 0 && now_ms.saturating_sub(*at_ms) > events::CALL_MEMBER_EXPIRES_MS / 2;
            let due: Vec<Seat> =
                state.live.iter().filter(|(_, at_ms)| old(at_ms)).map(|(seat, _)| seat.clone()).collect();
            for seat in &due {
                state.live.insert(seat.clone(), now_ms);
            }
            due
        };
        for seat in due {
            self.wish(seat, Wish::Present { since_ms: now_ms });
        }
    }

    fn wish(&self, seat: Seat, wish: Wish) {
        let pending = Pending { wish, attempts: 0, not_before: tokio::time::Instant::now() };
        self.lock().pending.insert(seat, pending);
        self.changed.notify_one();
    }

    /// No wishes come any more: the worker ends once the present ones are granted or given up.
    pub fn close(&self) {
        self.lock().closing = true;
        self.changed.notify_one();
    }

    /// Works until closed.
    pub async fn work(self: Arc<Self>, client: Arc<Client>) {
        let mut requests = JoinSet::new();
        loop {
            while requests.len() < REQUESTS_MAX {
                let Some((seat, wish)) = self.take_due() else { break };
                let (client, content) = (client.clone(), self.content(&seat, wish));
                requests.spawn(async move {
                    let key = events::call_member_state_key(&seat.user_id, &seat.device_id);
                    let result =
                        client.put_state(&seat.room_id, events::CALL_MEMBER, &key, &seat.user_id, &content).await;
                    (seat, wish, result)
                });
            }
            let next_at = {
                let state = self.lock();
                if state.closing && state.pending.is_empty() && requests.is_empty() {
                    return;
                }
                state
                    .pending
                    .iter()
                    .filter(|(seat, _)| !state.under_way.contains(seat))
                    .map(|(_, p)| p.not_before)
                    .min()
            };
            let full = requests.len() >= REQUESTS_MAX;
            tokio::select! {
                Some(done) = requests.join_next() => match done {
                    Ok((seat, wish, result)) => self.settle(seat, wish, result),
                    Err(error) => tracing::error!(%error, "writing a call membership ended by a panic"),
                },
                () = self.changed.notified() => {}
                () = sleep_until(next_at), if !full && next_at.is_some() => {}
            }
        }
    }

    fn take_due(&self) -> Option<(Seat, Wish)> {
        let now = tokio::time::Instant::now();
        let mut state = self.lock();
        let due = state.pending.iter().find(|(seat, p)| p.not_before <= now && !state.under_way.contains(*seat));
        let (seat, wish) = due.map(|(seat, pending)| (seat.clone(), pending.wish))?;
        state.under_way.insert(seat.clone());
        Some((seat, wish))
    }

    fn settle(&self, seat: Seat, asked: Wish, result: Result<(), Fault>) {
        let mut state = self.lock();
        state.under_way.remove(&seat);
        let wanted_still = state.pending.get(&seat).is_some_and(|pending| pending.wish == asked);
        let settled = match &result {
            Ok(()) => true,
            Err(Fault::Refused { status, errcode }) => {
                tracing::info!(room_id = %seat.room_id, %status, %errcode, "the room does not take a call membership");
                true
            }
            Err(fault) => Self::postpone(&mut state, &seat, fault),
        };
        if settled && wanted_still {
            state.pending.remove(&seat);
        }
        if settled && wanted_still && asked == Wish::Absent {
            state.live.remove(&seat);
            self.save(&state);
        }
    }

    /// Returns whether the wish is given up.
    fn postpone(state: &mut State, seat: &Seat, fault: &Fault) -> bool {
        let Some(pending) = state.pending.get_mut(seat) else { return true };
        pending.attempts += 1;
        if pending.attempts >= ATTEMPTS_MAX || state.closing && pending.attempts > 2 {
            tracing::warn!(room_id = %seat.room_id, %fault, "a call membership could not be written");
            // Kept in the file, so that the next start tries again.
            state.pending.remove(seat);
            return false;
        }
        let backoff = RETRY_MIN.saturating_mul(1 << pending.attempts.min(10)).min(RETRY_MAX);
        let wait = match fault {
            Fault::Later { retry_after: Some(after) } => (*after).min(RETRY_MAX),
            _ => backoff,
        };
        pending.not_before = tokio::time::Instant::now() + wait;
        false
    }

    fn content(&self, seat: &Seat, wish: Wish) -> Value {
        match wish {
            Wish::Absent => json!({}),
            Wish::Present { since_ms } => {
                serde_json::to_value(CallMember::new(&seat.user_id, &seat.device_id, since_ms, &self.service_url))
                    .expect("strings and numbers become JSON")
            }
        }
    }

    /// A few hundred bytes; replaced as a whole, so a crash leaves the old or the new.
    fn save(&self, state: &State) {
        let seats: Vec<&Seat> = state.live.keys().collect();
        let bytes = serde_json::to_vec(&seats).expect("strings become JSON");
        let beside = self.file.with_extension("new");
        let written = std::fs::write(&beside, bytes).and_then(|()| std::fs::rename(&beside, &self.file));
        if let Err(error) = written {
            tracing::error!(%error, "the file of live call memberships cannot be written");
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn sleep_until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
