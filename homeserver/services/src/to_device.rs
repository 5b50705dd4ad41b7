//! Messages from device to device: kept for local devices until they acknowledge them, queued for other servers until these
//! have them.
//!
//! * Order: a device receives in order of arrival; a server is sent in order of sending.
//! * Once: a repeated request of a client, or a repeated EDU of a server, delivers nothing twice (for [`SEEN_KEPT_DAYS`]).
//! * Bounds: [`QUEUE_LEN_MAX`] messages wait for a device and [`OUTBOUND_LEN_MAX`] EDUs for a server; beyond it the oldest
//!   go, because the newest carry the keys of what people read next.
//!
//! Not here: sending EDUs (the federation's queue reads `to_device_outbound` when the [`Outbox`] rings), what messages mean.
//!
//! Source: Client-Server API, "Send-to-Device messaging"; Server-Server API, the same.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::Arc,
};

use ruma::{
    OwnedServerName, OwnedUserId, ServerName, UserId, api::federation::transactions::edu::DirectDeviceContent,
    events::AnyToDeviceEventContent, serde::Raw, to_device::DeviceIdOrAllDevices,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use storage::{device_keys, numbers::Family, to_device};

use crate::{Context, Error, Result, accounts::User, notify::Change};

/// One message.
const CONTENT_BYTES_MAX: usize = 64 << 10;
/// Devices one request or EDU may reach on this server.
const DEVICES_MAX: usize = 20_000;
/// Messages that wait for a device.
const QUEUE_LEN_MAX: i64 = 10_000;
/// EDUs that wait for a server.
const OUTBOUND_LEN_MAX: i64 = 10_000;
/// Contents of one EDU together, unless a single message is larger.
const EDU_BYTES_MAX: usize = 48 << 10;
/// Messages in one answer to a device. The specification recommends it.
const DELIVERED_MAX: i64 = 100;
/// How long a message that came is remembered, in days.
const SEEN_KEPT_DAYS: i64 = 7;
/// Milliseconds of a day.
const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// Letters of a message's id, of at most 32.
const MESSAGE_ID_LEN: usize = 24;

/// Contents by user and by device.
pub type Messages = BTreeMap<OwnedUserId, BTreeMap<DeviceIdOrAllDevices, Raw<AnyToDeviceEventContent>>>;

/// The way to other servers, as far as messages need it. Must not wait.
pub trait Outbox: fmt::Debug + Send + Sync {
    /// Whether we send to this server at all.
    fn accepts(&self, server: &ServerName) -> bool;
    /// EDUs wait for these servers.
    fn ring(&self, servers: &[OwnedServerName]);
}

/// A server without others: nothing is sent, so nothing is queued.
#[derive(Debug, Clone, Copy)]
pub struct Alone;

impl Outbox for Alone {
    fn accepts(&self, _: &ServerName) -> bool {
        false
    }

    fn ring(&self, _: &[OwnedServerName]) {}
}

/// What a device receives.
#[derive(Debug, Clone)]
pub struct Inbox {
    /// The events, JSON.
    pub events: Vec<Box<RawValue>>,
    /// Position up to which the device has received everything with this. More may wait behind it: the token given to the
    /// device must carry this position, and `since` of the next delivery must be it.
    pub read_to: i64,
}

/// Messages between devices. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ToDevice {
    cx: Context,
    outbox: Arc<dyn Outbox>,
}

/// An event as a device receives it.
#[derive(Serialize)]
struct Event<'a> {
    sender: &'a UserId,
    r#type: &'a str,
    content: &'a Raw<AnyToDeviceEventContent>,
}

#[derive(Deserialize)]
struct Sender {
    sender: String,
}

impl ToDevice {
    /// On `cx`; `outbox` is told when messages wait for other servers.
    #[must_use]
    pub fn new(cx: Context, outbox: Arc<dyn Outbox>) -> Self {
        Self { cx, outbox }
    }

    /// Send a message to each device named, or to all of a user's. Devices that do not exist are passed over. The same
    /// transaction id of the same device again sends nothing.
    ///
    /// # Errors
    /// [`Error::TooLarge`]; then nothing was sent.
    pub async fn send(&self, from: &User, event_type: &str, txn_id: &str, messages: &Messages) -> Result<()> {
        if messages.values().flat_map(BTreeMap::values).any(is_too_large) {
            return Err(Error::TooLarge(format!("a message has at most {CONTENT_BYTES_MAX} bytes")));
        }
        let device = from.device_id.as_ref().map_or("", |device| device.as_str());
        let seen = (format!("{} {device}", from.user_id), format!("{event_type}/{txn_id}"));
        let (local, remote): (Messages, Messages) =
            messages.clone().into_iter().partition(|(user_id, _)| self.cx.is_local(user_id));
        let edus = self.edus(&from.user_id, event_type, remote)?;
        self.store(&from.user_id, event_type, seen, &local, edus).await
    }

    /// Messages of another server: `m.direct_to_device`. Too large ones and those for users of other servers are passed over.
    ///
    /// # Errors
    /// [`Error::Forbidden`] when the server speaks for a user who is not its own.
    pub async fn receive(&self, origin: &ServerName, edu: &DirectDeviceContent) -> Result<()> {
        if edu.sender.server_name() != origin || self.cx.is_us(origin) {
            return Err(Error::forbidden("a server speaks for its own users alone"));
        }
        let mut local = edu.messages.clone();
        local.retain(|user_id, _| self.cx.is_local(user_id));
        for devices in local.values_mut() {
            devices.retain(|_, content| !is_too_large(content));
        }
        let seen = (origin.to_string(), edu.message_id.to_string());
        self.store(&edu.sender, &edu.ev_type.to_string(), seen, &local, BTreeMap::new()).await
    }

    async fn store(
        &self,
        sender: &UserId,
        event_type: &str,
        (origin, message_id): (String, String),
        local: &Messages,
        edus: BTreeMap<OwnedServerName, Vec<String>>,
    ) -> Result<()> {
        let mut messages = self.addressed(sender, event_type, local).await?;
        let edu_count: usize = edus.values().map(Vec::len).sum();
        let count = i64::try_from(messages.len() + edu_count).unwrap_or(i64::MAX);
        let mut nids = self.cx.numbers.next_many(Family::ToDevice, count.max(1)).await?;
        for (message, nid) in messages.iter_mut().zip(&mut nids) {
            message.nid = nid;
        }
        let mut server_nids = Vec::new();
        for server in edus.keys() {
            server_nids.push(self.cx.numbers.server(server).await?);
        }

        let mut tx = self.cx.store.begin().await?;
        if !to_device::first_seen(&mut tx, &origin, &message_id, self.today()).await? {
            return Ok(tx.rollback().await?);
        }
        to_device::put(&mut tx, &messages).await?;
        let users: BTreeSet<i64> = messages.iter().map(|message| message.user_nid).collect();
        let users: Vec<i64> = users.into_iter().collect();
        for (user_nid, device_id, waiting) in to_device::crowded(&mut tx, &users, QUEUE_LEN_MAX).await? {
            to_device::drop_oldest(&mut tx, user_nid, &device_id, waiting - QUEUE_LEN_MAX).await?;
        }
        for (server_nid, bodies) in server_nids.iter().zip(edus.values()) {
            for (body, nid) in bodies.iter().zip(&mut nids) {
                to_device::queue(&mut tx, nid, *server_nid, body).await?;
            }
            to_device::drop_oldest_queued(&mut tx, *server_nid, OUTBOUND_LEN_MAX).await?;
        }
        let span = tx.commit().await?;
        self.cx.notify.publish(Change { inboxes: users, ..Change::at(span) });
        let servers: Vec<OwnedServerName> = edus.into_keys().collect();
        if !servers.is_empty() {
            self.outbox.ring(&servers);
        }
        Ok(())
    }

    /// The messages for devices that exist; their numbers are still to be given.
    async fn addressed(
        &self,
        sender: &UserId,
        event_type: &str,
        local: &Messages,
    ) -> Result<Vec<to_device::NewMessage>> {
        if local.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<&UserId> = local.keys().map(|user_id| &**user_id).collect();
        let known: HashMap<i64, &UserId> =
            self.cx.numbers.users_if_known(&ids).await?.into_iter().map(|(id, nid)| (nid, id)).collect();
        let nids: Vec<i64> = known.keys().copied().collect();
        let mut tx = self.cx.store.read().await?;
        let devices = device_keys::devices_of(&mut tx, &nids).await?;
        drop(tx);
        let mut messages = Vec::new();
        for (user_nid, device_id) in devices {
            let Some(contents) = known.get(&user_nid).and_then(|user_id| local.get(*user_id)) else { continue };
            let named = contents.get(&DeviceIdOrAllDevices::DeviceId(device_id.as_str().into()));
            let Some(content) = named.or_else(|| contents.get(&DeviceIdOrAllDevices::AllDevices)) else { continue };
            let event = Event { sender, r#type: event_type, content };
            let body = serde_json::to_string(&event).map_err(Error::internal)?;
            messages.push(to_device::NewMessage { nid: 0, user_nid, device_id, body });
        }
        if messages.len() > DEVICES_MAX {
            return Err(Error::TooLarge(format!("a message reaches at most {DEVICES_MAX} devices")));
        }
        Ok(messages)
    }

    /// EDUs for each server, each of a size that servers take.
    fn edus(
        &self,
        sender: &UserId,
        event_type: &str,
        remote: Messages,
    ) -> Result<BTreeMap<OwnedServerName, Vec<String>>> {
        let mut servers: BTreeMap<OwnedServerName, Vec<(OwnedUserId, DeviceIdOrAllDevices, _)>> = BTreeMap::new();
        for (user_id, devices) in remote {
            let server = user_id.server_name();
            if !self.outbox.accepts(server) {
                continue;
            }
            let messages = servers.entry(server.to_owned()).or_default();
            messages.extend(devices.into_iter().map(|(device, content)| (user_id.clone(), device, content)));
        }
        let mut edus = BTreeMap::new();
        for (server, messages) in servers {
            let mut bodies = Vec::new();
            let mut edu = self.new_edu(sender, event_type);
            let mut bytes = 0;
            for (user_id, device, content) in messages {
                let len = content.json().get().len();
                if bytes > 0 && bytes + len > EDU_BYTES_MAX {
                    bodies.push(serde_json::to_string(&edu).map_err(Error::internal)?);
                    edu = self.new_edu(sender, event_type);
                    bytes = 0;
                }
                bytes += len;
                edu.messages.entry(user_id).or_default().insert(device, content);
            }
            bodies.push(serde_json::to_string(&edu).map_err(Error::internal)?);
            edus.insert(server, bodies);
        }
        Ok(edus)
    }

    fn new_edu(&self, sender: &UserId, event_type: &str) -> DirectDeviceContent {
        let id = self.cx.randomness.letters(MESSAGE_ID_LEN).into();
        DirectDeviceContent::new(sender.to_owned(), event_type.into(), id)
    }

    /// What a device that has received everything up to `since` receives next, of what came up to `until`. What it has
    /// received is deleted. Events of a sender whom `is_excluded` names are dropped. Two statements at most.
    ///
    /// # Errors
    /// The database's.
    pub async fn deliver(
        &self,
        user_nid: i64,
        device_id: &str,
        since: i64,
        until: i64,
        is_excluded: impl Fn(&str) -> bool,
    ) -> Result<Inbox> {
        let mut tx = self.cx.store.read().await?;
        let rows = to_device::read(&mut tx, user_nid, device_id, since, until, DELIVERED_MAX).await?;
        drop(tx);
        if rows.first().is_some_and(|(pos, _)| *pos <= since) {
            let mut tx = self.cx.store.begin().await?;
            to_device::acknowledge(&mut tx, user_nid, device_id, since).await?;
            tx.commit().await?;
        }
        let waiting: Vec<_> = rows.into_iter().filter(|(pos, _)| *pos > since).collect();
        let is_full = i64::try_from(waiting.len()).is_ok_and(|len| len >= DELIVERED_MAX);
        let read_to = waiting.last().map(|(pos, _)| *pos).filter(|_| is_full).unwrap_or(until);
        let mut events = Vec::with_capacity(waiting.len());
        for (_, body) in waiting {
            let from: Sender = serde_json::from_str(&body).map_err(Error::internal)?;
            if !is_excluded(&from.sender) {
                events.push(RawValue::from_string(body).map_err(Error::internal)?);
            }
        }
        Ok(Inbox { events, read_to })
    }

    /// Forget which messages came long ago. Run once a day or so.
    ///
    /// # Errors
    /// The database's.
    pub async fn sweep(&self) -> Result<()> {
        let mut tx = self.cx.store.begin().await?;
        to_device::forget_seen(&mut tx, self.today() - SEEN_KEPT_DAYS).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Days since 1970.
    fn today(&self) -> i64 {
        i64::try_from(self.cx.clock.now_ms() / DAY_MS).unwrap_or(i64::MAX)
    }
}

fn is_too_large(content: &Raw<AnyToDeviceEventContent>) -> bool {
    content.json().get().len() > CONTENT_BYTES_MAX
}
