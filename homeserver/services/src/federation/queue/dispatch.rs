//! The walk over the stream: what is new is handed to the destinations it concerns.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, PoisonError},
};

use room::{auth::facts, event::kind};
use ruma::{OwnedServerName, UserId, events::room::member::MembershipState};
use storage::{
    destinations::{self, Cursor},
    members, timeline,
};

use super::{
    DISPATCHER, Ephemeral, News, Queue,
    destination::{Destination, Item, What},
    share_of, units,
};
use crate::{Result, timeline::events::Stored};

/// Rows of the stream read at a time.
const CHUNK_LEN: i64 = 500;

impl Queue {
    /// Begin anew for the destinations of these shares: their cursors say where.
    pub(super) async fn resume(&self, shares: &BTreeSet<u64>) -> Result<()> {
        let mut tx = self.0.cx.store.read().await?;
        let cursors = destinations::cursors(&mut tx).await?;
        let lagging: BTreeSet<String> = destinations::lagging(&mut tx).await?.into_iter().collect();
        let waiting = storage::to_device::queued_servers(&mut tx).await?;
        drop(tx);
        let stable = self.0.cx.notify.stable();
        let mut from = stable;
        for cursor in cursors {
            if cursor.server == DISPATCHER {
                from = from.min(cursor.out_pos);
                continue;
            }
            let Ok(server) = OwnedServerName::try_from(cursor.server.as_str()) else { continue };
            if !shares.contains(&share_of(&server)) {
                continue;
            }
            from = from.min(cursor.out_pos);
            let server_nid = self.0.cx.numbers.server(&server).await?;
            let destination = Destination::new(server.clone(), server_nid, &cursor, lagging.contains(&cursor.server));
            self.0.destinations.lock().unwrap_or_else(PoisonError::into_inner).insert(server, Arc::new(destination));
        }
        self.progress().dispatched = from;
        self.dispatch(from, stable, None).await?;
        let names = self.0.cx.numbers.server_names(&waiting).await?;
        let waiting = names.values().filter_map(|name| name.parse().ok()).collect();
        self.wake(&waiting).await?;
        let all: Vec<_> =
            self.0.destinations.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        for destination in all {
            self.work(&destination);
        }
        Ok(())
    }

    /// Hand on what changed since the last time.
    pub(super) async fn dispatch_news(&self) -> Result<()> {
        let news = std::mem::take(&mut *self.0.news.lock().unwrap_or_else(PoisonError::into_inner));
        let since = self.progress().dispatched;
        if news.until <= since {
            return Ok(());
        }
        let until = news.until;
        if let Err(error) = self.dispatch(since, until, Some(&news)).await {
            // Nothing of it may be forgotten.
            let mut left = self.0.news.lock().unwrap_or_else(PoisonError::into_inner);
            left.until = left.until.max(until);
            left.rooms.extend(news.rooms);
            left.receipt_rooms.extend(news.receipt_rooms);
            left.has_devices |= news.has_devices;
            left.has_state |= news.has_state;
            return Err(error);
        }
        Ok(())
    }

    /// Hand on the stream in `since < pos <= until`. `news` says what is in it, to spare looking for what is not.
    async fn dispatch(&self, since: i64, until: i64, news: Option<&News>) -> Result<()> {
        // A membership may concern a server that is no longer in the room.
        let mut concerns_others = news.is_none_or(|news| news.has_state);
        if let Some(news) = news {
            for room_nid in &news.rooms {
                concerns_others |= self.has_others(*room_nid).await?;
            }
        }
        if concerns_others {
            self.dispatch_events(since, until).await?;
        }
        let mut has_receipts = false;
        for room_nid in news.iter().flat_map(|news| &news.receipt_rooms) {
            has_receipts |= self.has_others(*room_nid).await?;
        }
        if has_receipts {
            self.dispatch_receipts(since, until).await?;
        }
        if news.is_none_or(|news| news.has_devices) {
            self.dispatch_devices(since, until).await?;
        }
        let mut progress = self.progress();
        progress.dispatched = progress.dispatched.max(until);
        Ok(())
    }

    /// Whether other servers are in a room.
    async fn has_others(&self, room_nid: i64) -> Result<bool> {
        Ok(self.0.sources.timeline.now(room_nid).await?.inhabitants.servers.len() > 1)
    }

    async fn dispatch_events(&self, mut since: i64, until: i64) -> Result<()> {
        loop {
            let rows = timeline::local_between(&mut self.0.cx.store.read().await?, since, until, CHUNK_LEN).await?;
            let nids: Vec<i64> = rows.iter().map(|row| row.1).collect();
            let events = self.0.sources.timeline.events.by_nids(&nids).await?;
            for (pos, event_nid, room_nid) in &rows {
                let Some(event) = events.get(event_nid) else { continue };
                let servers = self.concerned_by(*room_nid, event).await?;
                let what = What::Event(Arc::clone(event));
                self.push(&servers, &Item { pos: *pos, room_nid: *room_nid, what }).await?;
            }
            match rows.last() {
                Some(row) if rows.len() >= usize::try_from(CHUNK_LEN).unwrap_or(usize::MAX) => since = row.0,
                _ => return Ok(()),
            }
        }
    }

    /// The other servers an event concerns: those in the room, and that of whoever it puts out of it.
    async fn concerned_by(&self, room_nid: i64, event: &Stored) -> Result<BTreeSet<OwnedServerName>> {
        let mut servers = self.others_in(room_nid).await?;
        if event.pdu.kind == kind::MEMBER
            && matches!(facts::membership(&event.pdu), MembershipState::Leave | MembershipState::Ban)
            && let Some(user) = event.pdu.state_key.as_deref().and_then(|key| UserId::parse(key).ok())
            && !self.0.cx.is_local(&user)
        {
            servers.insert(user.server_name().to_owned());
        }
        servers.remove(event.pdu.sender.server_name());
        Ok(servers)
    }

    async fn others_in(&self, room_nid: i64) -> Result<BTreeSet<OwnedServerName>> {
        let now = self.0.sources.timeline.now(room_nid).await?;
        self.named(&now.inhabitants.servers.keys().copied().collect::<Vec<_>>()).await
    }

    async fn others_sharing(&self, user_nid: i64) -> Result<BTreeSet<OwnedServerName>> {
        let nids = members::servers_of_rooms_of(&mut self.0.cx.store.read().await?, user_nid).await?;
        self.named(&nids).await
    }

    async fn named(&self, server_nids: &[i64]) -> Result<BTreeSet<OwnedServerName>> {
        let names = self.0.cx.numbers.server_names(server_nids).await?;
        let servers = names.values().filter_map(|name| name.parse::<OwnedServerName>().ok());
        Ok(servers.filter(|server| !self.0.cx.is_us(server)).collect())
    }

    async fn dispatch_receipts(&self, since: i64, until: i64) -> Result<()> {
        let receipts = self.0.sources.receipts.local_between(since, until, CHUNK_LEN).await?;
        let mut by_room: HashMap<i64, Vec<_>> = HashMap::new();
        for receipt in receipts {
            by_room.entry(receipt.room_nid).or_default().push(receipt);
        }
        for (room_nid, receipts) in by_room {
            let servers = self.others_in(room_nid).await?;
            if servers.is_empty() {
                continue;
            }
            let room_id = self.0.sources.timeline.now(room_nid).await?.room_id.clone();
            let users: Vec<i64> = receipts.iter().map(|receipt| receipt.user_nid).collect();
            let names = self.0.cx.numbers.user_names(&users).await?;
            for unit in units::receipts(&room_id, &receipts, &names) {
                self.push_unit(&servers, &unit).await?;
            }
        }
        Ok(())
    }

    async fn dispatch_devices(&self, mut since: i64, until: i64) -> Result<()> {
        loop {
            let updates = self.0.sources.keys.updates_for_peers(since, until, CHUNK_LEN).await?;
            for update in &updates {
                let servers = self.others_sharing(update.user_nid).await?;
                let Some(unit) = units::raw(&update.edu) else { continue };
                self.push(&servers, &Item { pos: update.pos, room_nid: 0, what: What::Device(unit) }).await?;
            }
            match updates.last() {
                Some(last) if updates.len() >= usize::try_from(CHUNK_LEN).unwrap_or(usize::MAX) => since = last.pos,
                _ => return Ok(()),
            }
        }
    }

    pub(super) async fn dispatch_ephemeral(&self, told: Ephemeral) -> Result<()> {
        match told {
            Ephemeral::Typing { room_nid, user_nid, is_typing } => {
                let servers = self.others_in(room_nid).await?;
                if servers.is_empty() {
                    return Ok(());
                }
                let room_id = self.0.sources.timeline.now(room_nid).await?.room_id.clone();
                let names = self.0.cx.numbers.user_names(&[user_nid]).await?;
                let unit = names.get(&user_nid).and_then(|name| units::typing(&room_id, name, is_typing));
                if let Some(unit) = unit {
                    self.push_unit(&servers, &unit).await?;
                }
            }
            Ephemeral::Presence(seen) => {
                let nids: Vec<i64> = seen.iter().map(|(nid, _)| *nid).collect();
                let names = self.0.cx.numbers.user_names(&nids).await?;
                for (user_nid, seen) in seen {
                    let servers = self.others_sharing(user_nid).await?;
                    let shown = self.0.sources.presence.show(seen);
                    if let Some(unit) = names.get(&user_nid).and_then(|name| units::presence(name, shown)) {
                        self.push_unit(&servers, &unit).await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Hand an item to destinations; for those that do not answer it is noted instead.
    async fn push(&self, servers: &BTreeSet<OwnedServerName>, item: &Item) -> Result<()> {
        for server in servers {
            if !self.delivers_to(server) {
                continue;
            }
            let destination = self.destination_from(server, item.pos - 1).await?;
            if self.0.client.health().pause_ms(server) > 0 {
                self.step_back(&destination).await?;
            }
            if !destination.push(item.clone()) && matches!(item.what, What::Event(_)) {
                let mut tx = self.0.cx.store.begin().await?;
                destinations::note(&mut tx, server.as_str(), item.room_nid, item.pos).await?;
                tx.commit().await?;
                destination.noted(item.pos);
            }
            if destination.is_full() {
                self.step_back(&destination).await?;
            }
            self.work(&destination);
        }
        Ok(())
    }

    async fn push_unit(&self, servers: &BTreeSet<OwnedServerName>, unit: &units::Unit) -> Result<()> {
        for server in servers {
            let destination = self.destination(server).await?;
            destination.push_unit(unit.clone());
            self.work(&destination);
        }
        Ok(())
    }

    /// The destination as it is in memory, made now if it is not.
    pub(super) async fn destination(&self, server: &OwnedServerName) -> Result<Arc<Destination>> {
        let dispatched = self.progress().dispatched;
        self.destination_from(server, dispatched).await
    }

    /// The destination; one that was never told anything begins after `pos`, which is stored before it is told.
    async fn destination_from(&self, server: &OwnedServerName, pos: i64) -> Result<Arc<Destination>> {
        if let Some(destination) = self.known(server) {
            return Ok(destination);
        }
        let server_nid = self.0.cx.numbers.server(server).await?;
        let cursor = Cursor { server: server.to_string(), out_pos: pos.max(1), device_pos: pos.max(1) };
        if self.delivers_to(server) {
            let mut tx = self.0.cx.store.begin().await?;
            destinations::set_cursor(&mut tx, &cursor).await?;
            tx.commit().await?;
        }
        let destination = Arc::new(Destination::new(server.clone(), server_nid, &cursor, false));
        let mut all = self.0.destinations.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Arc::clone(all.entry(server.clone()).or_insert(destination)))
    }

    /// Write how far each destination has been told.
    pub(super) async fn flush(&self) -> Result<()> {
        let all: Vec<_> =
            self.0.destinations.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        let dispatched = self.progress().dispatched;
        let (mut moved, mut idle) = (Vec::new(), vec![DISPATCHER.to_owned()]);
        for destination in all {
            if !self.delivers_to(&destination.server) {
                continue;
            }
            moved.extend(destination.moved());
            if destination.is_idle() {
                idle.push(destination.server.to_string());
            }
        }
        let is_due = dispatched - self.0.flushed.load(std::sync::atomic::Ordering::Relaxed) >= IDLE_ADVANCE;
        if moved.is_empty() && !is_due {
            return Ok(());
        }
        let mut tx = self.0.cx.store.begin().await?;
        for cursor in &moved {
            destinations::set_cursor(&mut tx, cursor).await?;
        }
        if is_due {
            let own = Cursor { server: DISPATCHER.to_owned(), out_pos: dispatched, device_pos: dispatched };
            destinations::set_cursor(&mut tx, &own).await?;
            destinations::advance(&mut tx, &idle, dispatched).await?;
        }
        tx.commit().await?;
        if is_due {
            self.0.flushed.store(dispatched, std::sync::atomic::Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Idle destinations' cursors are moved along whenever the stream grew by this much.
const IDLE_ADVANCE: i64 = 1_000;
