//! What other servers send us: transactions, the events in them, and what we must ask for before we can judge those.
//!
//! A transaction is acknowledged as soon as its events wait in the database ([`transactions`]); one worker for each room then takes
//! them in order ([`Incoming::take`]): what vouches for an event and what comes before it is fetched from the server that sent it
//! (`fetch`), crate `room` judges, and [`Timeline::accept`] stores. Ephemeral units are handed to their services at once (`edus`).
//!
//! Not here: rules (crate `room`), answering questions ([`crate::resident`]), asking to join ([`crate::joining`]).

mod edus;
mod fetch;
mod judge;
pub(crate) mod retracted;
mod transactions;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
};

use room::versions::Rules;
use ruma::{OwnedRoomId, OwnedServerName, RoomId};
use tokio::sync::{Notify as Bell, Semaphore};

pub use self::{
    judge::{How, Taken},
    transactions::Outcomes,
};
use crate::{
    Context, Result,
    federation::Federation,
    keys::Keys,
    one_at_a_time::OneAtATime,
    presence::Presence,
    receipts::Receipts,
    timeline::{Timeline, now::RoomNow},
    to_device::ToDevice,
    typing::Typing,
};

/// Rooms whose events are judged at a time.
const ROOMS_AT_ONCE_MAX: usize = 32;

/// Where ephemeral units go.
#[derive(Debug, Clone)]
pub struct Ephemeral {
    /// `m.typing`
    pub typing: Typing,
    /// `m.receipt`
    pub receipts: Receipts,
    /// `m.presence`
    pub presence: Presence,
    /// `m.device_list_update`, `m.signing_key_update`
    pub keys: Keys,
    /// `m.direct_to_device`
    pub to_device: ToDevice,
}

/// A room as far as judging an event needs it.
#[derive(Debug, Clone)]
pub struct Room {
    /// Its number.
    pub nid: i64,
    /// Its id.
    pub id: OwnedRoomId,
    /// Its version's rules.
    pub rules: &'static Rules,
}

impl From<&RoomNow> for Room {
    fn from(now: &RoomNow) -> Self {
        Self { nid: now.nid, id: now.room_id.clone(), rules: now.rules }
    }
}

/// Takes what other servers send. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Incoming(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    cx: Context,
    timeline: Timeline,
    federation: Federation,
    ephemeral: Ephemeral,
    /// Rooms that have a worker in this process.
    at_work: Mutex<HashSet<OwnedRoomId>>,
    /// One transaction of a server at a time, as the specification has it: a server that sends many at once waits for itself.
    turns: OneAtATime<OwnedServerName>,
    /// Events that wait, by the server that sent them.
    waiting: Mutex<HashMap<OwnedServerName, usize>>,
    /// Rung whenever an event has been judged.
    judged: Bell,
    room_permits: Semaphore,
}

impl Incoming {
    /// Begin with what waited when the last run ended.
    ///
    /// # Errors
    /// The database's.
    pub async fn start(cx: Context, timeline: Timeline, federation: Federation, ephemeral: Ephemeral) -> Result<Self> {
        let incoming = Self(Arc::new(Inner {
            cx,
            timeline,
            federation,
            ephemeral,
            at_work: Mutex::default(),
            turns: OneAtATime::default(),
            waiting: Mutex::default(),
            judged: Bell::new(),
            room_permits: Semaphore::new(ROOMS_AT_ONCE_MAX),
        }));
        incoming.resume(i64::MAX).await?;
        incoming.watch_for_orphans();
        Ok(incoming)
    }

    /// The room, when users of ours are in it.
    async fn inhabited(&self, room_id: &RoomId) -> Result<Option<Arc<RoomNow>>> {
        match self.0.timeline.room(room_id).await {
            Ok(now) => Ok(Some(now).filter(|now| !now.inhabitants.local.is_empty())),
            Err(crate::Error::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
