//! One destination: what waits for it, and the task that sends it.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ruma::{
    OwnedServerName,
    api::federation::transactions::{edu::Edu, send_transaction_message::v1::Request},
    serde::Raw,
};
use serde_json::value::RawValue;
use storage::{
    destinations::{self, Cursor},
    timeline, to_device,
};
use tokio::sync::Notify as Bell;

use super::{Queue, units::Unit};
use crate::{
    Result,
    federation::{EDUS_PER_TRANSACTION_MAX, PDUS_PER_TRANSACTION_MAX, client::Terms},
    timeline::events::Stored,
};

/// Items that wait in memory; a destination that falls behind further is told the newest event of each room alone.
const ITEMS_MAX: usize = 1_000;
/// Receipts, typing and presence that wait; older ones are dropped.
const UNITS_MAX: usize = 200;
/// Until a transaction has been answered.
const TRANSACTION: Terms = Terms { timeout: Duration::from_secs(60), needs_success: true, ..Terms::BRIEF };
/// Changes of devices looked through at a time when a destination is back.
const DEVICES_MAX: i64 = 100;

/// Something with a position.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub pos: i64,
    /// 0 for what concerns no room.
    pub room_nid: i64,
    pub what: What,
}

#[derive(Debug, Clone)]
pub(super) enum What {
    Event(Arc<Stored>),
    Device(Unit),
}

/// A server we tell things.
#[derive(Debug)]
pub(super) struct Destination {
    pub server: OwnedServerName,
    server_nid: i64,
    state: Mutex<State>,
    bell: Bell,
}

#[derive(Debug)]
struct State {
    items: VecDeque<Item>,
    units: VecDeque<Unit>,
    /// Messages to devices may wait in the database.
    has_messages: bool,
    /// Events are noted in the database rather than kept here.
    is_behind: bool,
    /// The last position handed to us.
    pushed: i64,
    out_pos: i64,
    device_pos: i64,
    /// The cursor has moved since it was written.
    is_dirty: bool,
    /// Has a task.
    is_running: bool,
}

/// A transaction to be sent, and what its success means.
#[derive(Debug, Default)]
struct Batch {
    pdus: Vec<Box<RawValue>>,
    edus: Vec<Box<RawValue>>,
    /// Items taken from the front of the queue.
    item_count: usize,
    unit_count: usize,
    /// Position of the last message to a device.
    messages_to: Option<i64>,
    /// Rooms that were noted, up to these positions.
    rooms: Vec<(i64, i64)>,
    /// Changes of devices up to here.
    devices_to: Option<i64>,
}

impl Destination {
    pub(super) fn new(server: OwnedServerName, server_nid: i64, cursor: &Cursor, is_behind: bool) -> Self {
        let state = State {
            items: VecDeque::new(),
            units: VecDeque::new(),
            has_messages: true,
            // What changed of devices may be more than what was noted.
            is_behind: is_behind || cursor.device_pos < cursor.out_pos,
            pushed: cursor.out_pos,
            out_pos: cursor.out_pos,
            device_pos: cursor.device_pos,
            is_dirty: false,
            is_running: false,
        };
        Self { server, server_nid, state: Mutex::new(state), bell: Bell::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn ring(&self) {
        self.bell.notify_one();
    }

    pub(super) fn has_messages(&self) {
        self.state().has_messages = true;
    }

    /// Let an item wait. False when it must be noted instead. What was handed over before is passed over.
    pub(super) fn push(&self, item: Item) -> bool {
        let mut state = self.state();
        if item.pos <= state.pushed {
            return true;
        }
        if state.is_behind {
            return false;
        }
        state.pushed = item.pos;
        state.items.push_back(item);
        true
    }

    /// An event was noted for it.
    pub(super) fn noted(&self, pos: i64) {
        let mut state = self.state();
        // The task may have found nothing noted a moment ago.
        state.is_behind = true;
        state.pushed = state.pushed.max(pos);
        state.out_pos = state.out_pos.max(pos);
        state.is_dirty = true;
    }

    pub(super) fn push_unit(&self, unit: Unit) {
        let mut state = self.state();
        if state.units.len() >= UNITS_MAX {
            state.units.pop_front();
        }
        state.units.push_back(unit);
    }

    pub(super) fn is_full(&self) -> bool {
        self.state().items.len() > ITEMS_MAX
    }

    /// Nothing waits: its cursor may move along with the stream.
    pub(super) fn is_idle(&self) -> bool {
        let state = self.state();
        state.items.is_empty() && !state.is_behind && !state.is_running
    }

    /// The cursor, if it moved since it was last asked for.
    pub(super) fn moved(&self) -> Option<Cursor> {
        let mut state = self.state();
        std::mem::take(&mut state.is_dirty).then(|| Cursor {
            server: self.server.to_string(),
            out_pos: state.out_pos,
            device_pos: state.device_pos,
        })
    }
}

impl Queue {
    /// The destination does not answer or cannot keep up: note its events, empty its queue.
    pub(super) async fn step_back(&self, destination: &Destination) -> Result<()> {
        let items: Vec<Item> = {
            let mut state = destination.state();
            if state.is_behind && state.items.is_empty() {
                return Ok(());
            }
            state.is_behind = true;
            state.units.clear();
            state.items.iter().cloned().collect()
        };
        let mut tx = self.0.cx.store.begin().await?;
        for item in items.iter().filter(|item| matches!(item.what, What::Event(_))) {
            destinations::note(&mut tx, destination.server.as_str(), item.room_nid, item.pos).await?;
        }
        tx.commit().await?;
        let mut state = destination.state();
        if let Some(last) = items.last() {
            state.out_pos = state.out_pos.max(last.pos);
            state.is_dirty = true;
            state.items.retain(|item| item.pos > last.pos);
        }
        Ok(())
    }

    /// See that the destination has a task.
    pub(super) fn work(&self, destination: &Arc<Destination>) {
        {
            let mut state = destination.state();
            if state.is_running {
                return;
            }
            state.is_running = true;
        }
        let queue = Arc::downgrade(&self.0);
        let destination = Arc::clone(destination);
        tokio::spawn(async move {
            loop {
                let Some(inner) = queue.upgrade() else { return };
                let queue = Self(inner);
                match queue.work_once(&destination).await {
                    Ok(Progress::Sent) => {}
                    Ok(Progress::Nothing) => return,
                    Ok(Progress::Pause(pause)) => {
                        let weak = Arc::downgrade(&queue.0);
                        drop(queue);
                        // Rung when a server came back, which may be this one.
                        let _ = tokio::time::timeout(pause, destination.bell.notified()).await;
                        if weak.strong_count() == 0 {
                            return;
                        }
                    }
                    Err(error) => {
                        tracing::warn!(server = %destination.server, %error, "a destination cannot be served now");
                        tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
                    }
                }
            }
        });
    }

    async fn work_once(&self, destination: &Arc<Destination>) -> Result<Progress> {
        let server = &destination.server;
        let pause_ms = self.0.client.health().pause_ms(server);
        if pause_ms > 0 {
            self.step_back(destination).await?;
            return Ok(Progress::Pause(Duration::from_millis(pause_ms)));
        }
        let batch = self.next_batch(destination).await?;
        if batch.pdus.is_empty() && batch.edus.is_empty() {
            self.delivered(destination, &batch).await?;
            let mut state = destination.state();
            let is_ours = self.delivers_to(server);
            let waits = !state.units.is_empty()
                || is_ours && (!state.items.is_empty() || state.has_messages || state.is_behind);
            state.is_running = waits;
            return Ok(if waits { Progress::Sent } else { Progress::Nothing });
        }
        let mut request =
            Request::new(self.transaction_id().into(), self.0.cx.server_name.clone(), self.0.cx.clock.now());
        request.pdus = batch.pdus.clone();
        request.edus = batch.edus.iter().map(|unit| Raw::<Edu>::from_json(unit.clone())).collect();
        match self.0.client.send(server, request, TRANSACTION).await {
            Ok(answer) => {
                for (event_id, problem) in answer.pdus.iter().filter_map(|(id, o)| Some((id, o.as_ref().err()?))) {
                    tracing::info!(%server, %event_id, problem, "an event of ours was not taken");
                }
                self.delivered(destination, &batch).await?;
            }
            Err(error) => {
                tracing::debug!(%server, %error, "a transaction was not taken");
                self.step_back(destination).await?;
            }
        }
        Ok(Progress::Sent)
    }

    fn transaction_id(&self) -> String {
        let mut progress = self.progress();
        progress.transaction += 1;
        format!("{}-{}", self.0.owner, progress.transaction)
    }

    /// What to send next: messages to devices before everything else.
    async fn next_batch(&self, destination: &Destination) -> Result<Batch> {
        let mut batch = Batch::default();
        let is_ours = self.delivers_to(&destination.server);
        let (looks, is_behind) = {
            let mut state = destination.state();
            (std::mem::take(&mut state.has_messages) && is_ours, state.is_behind && is_ours)
        };
        if looks {
            let limit = i64::try_from(EDUS_PER_TRANSACTION_MAX).unwrap_or(i64::MAX);
            let mut tx = self.0.cx.store.read().await?;
            for (pos, body) in to_device::queued(&mut tx, destination.server_nid, limit).await? {
                batch.messages_to = Some(pos);
                let unit = format!(r#"{{"edu_type":"m.direct_to_device","content":{body}}}"#);
                batch.edus.extend(RawValue::from_string(unit));
            }
        }
        if batch.messages_to.is_some() {
            destination.has_messages();
        }
        if is_behind {
            self.catch_up(destination, &mut batch).await?;
        }
        let state = destination.state();
        if !state.is_behind {
            for item in &state.items {
                match &item.what {
                    What::Event(event) if batch.pdus.len() < PDUS_PER_TRANSACTION_MAX => {
                        batch.pdus.push(event.pdu.to_federation());
                    }
                    What::Device(unit) if batch.edus.len() < EDUS_PER_TRANSACTION_MAX => {
                        batch.edus.push(RawValue::to_owned(unit));
                    }
                    _ => break,
                }
                batch.item_count += 1;
            }
        }
        let free = EDUS_PER_TRANSACTION_MAX - batch.edus.len().min(EDUS_PER_TRANSACTION_MAX);
        batch.edus.extend(state.units.iter().take(free).map(|unit| RawValue::to_owned(unit)));
        batch.unit_count = state.units.len().min(free);
        Ok(batch)
    }

    /// What a destination that was away has yet to be told: changes of devices, and the newest event of each room.
    async fn catch_up(&self, destination: &Destination, batch: &mut Batch) -> Result<()> {
        let (device_pos, until) = {
            let dispatched = self.progress().dispatched;
            (destination.state().device_pos, dispatched)
        };
        let updates = self.0.sources.keys.updates_for_peers(device_pos, until, DEVICES_MAX).await?;
        let is_last = updates.len() < usize::try_from(DEVICES_MAX).unwrap_or(usize::MAX);
        batch.devices_to = Some(device_pos);
        for update in &updates {
            if batch.edus.len() >= EDUS_PER_TRANSACTION_MAX {
                break;
            }
            batch.devices_to = Some(update.pos);
            let mut tx = self.0.cx.store.read().await?;
            let sharing = storage::members::servers_of_rooms_of(&mut tx, update.user_nid).await?;
            drop(tx);
            if sharing.contains(&destination.server_nid) {
                batch.edus.extend(serde_json::value::to_raw_value(&update.edu));
            }
        }
        if is_last && batch.edus.len() < EDUS_PER_TRANSACTION_MAX {
            batch.devices_to = Some(until);
        }
        let limit = i64::try_from(PDUS_PER_TRANSACTION_MAX).unwrap_or(i64::MAX);
        let mut tx = self.0.cx.store.read().await?;
        batch.rooms = destinations::noted(&mut tx, destination.server.as_str(), limit).await?;
        let positions: Vec<i64> = batch.rooms.iter().map(|(_, pos)| *pos).collect();
        let found = timeline::at(&mut tx, &positions).await?;
        drop(tx);
        let nids: Vec<i64> = found.iter().map(|(_, nid)| *nid).collect();
        let events = self.0.sources.timeline.events.by_nids(&nids).await?;
        batch.pdus.extend(nids.iter().filter_map(|nid| events.get(nid)).map(|event| event.pdu.to_federation()));
        Ok(())
    }

    /// A transaction was taken.
    async fn delivered(&self, destination: &Destination, batch: &Batch) -> Result<()> {
        if batch.messages_to.is_some() || !batch.rooms.is_empty() {
            let mut tx = self.0.cx.store.begin().await?;
            if let Some(pos) = batch.messages_to {
                to_device::delivered(&mut tx, destination.server_nid, pos).await?;
            }
            for (room_nid, pos) in &batch.rooms {
                destinations::told(&mut tx, destination.server.as_str(), *room_nid, *pos).await?;
            }
            tx.commit().await?;
        }
        let dispatched = self.progress().dispatched;
        let mut state = destination.state();
        let items = batch.item_count.min(state.items.len());
        let last = state.items.drain(..items).next_back();
        if let Some(last) = last {
            state.out_pos = state.out_pos.max(last.pos);
            state.device_pos = state.device_pos.max(last.pos);
            state.is_dirty = true;
        }
        let units = batch.unit_count.min(state.units.len());
        state.units.drain(..units);
        if let Some(pos) = batch.devices_to {
            state.device_pos = state.device_pos.max(pos);
            state.is_dirty = true;
            // Nothing is left to tell it of: it takes part again. What was noted meanwhile would be in a full batch.
            if batch.rooms.is_empty() && pos >= dispatched && state.pushed <= state.out_pos {
                state.is_behind = false;
            }
        }
        Ok(())
    }
}

enum Progress {
    Sent,
    Nothing,
    Pause(Duration),
}

/// Pause of a destination's task after our own database failed.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(5);
