//! Keys of other servers' users.
//!
//! As long as such a user shares a room with one of ours, their server tells us of every change, so a copy of their keys is as
//! good as asking. A copy is stale when an update is missing between two, when it began to be fetched before an update came, and
//! after the last shared room was left; stale copies are fetched anew when somebody asks. Updates are numbered: an answer of
//! `/user/keys/query` names no number, so the first update after it makes the copy stale, and the next fetch asks
//! `/user/devices`, which does.
//!
//! Source: Server-Server API, "Device Management", "End-to-End Encryption".

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    time::Duration,
};

use futures_util::{StreamExt as _, future::BoxFuture, stream};
use ruma::{
    OwnedServerName, OwnedUserId, ServerName, UserId,
    api::federation::transactions::edu::{DeviceListUpdateContent, SigningKeyUpdateContent},
    encryption::{CrossSigningKey, DeviceKeys},
    serde::Raw,
};
use serde_json::{Value, json};
use storage::{
    Tx, cross_signing, device_changes, device_changes::NewChange, device_keys, locks, remote_device_lists, sharing,
};

use super::{
    ClaimedKeys, Claims, DeviceList, Keys, ListedDevice, UsersKeys, Wanted,
    changes::display_name,
    cross_signing::{row, well_formed},
    query::Viewer,
    signed_json,
    upload::DEVICE_KEYS_BYTES_MAX,
};
use crate::{Error, Result};

/// Servers asked at the same time for one request.
pub(super) const SERVERS_AT_ONCE: usize = 32;
/// Users of one server whose devices are asked for one by one at the same time.
const USERS_AT_ONCE: usize = 8;
/// Devices of a user of another server that we keep.
const DEVICES_PER_USER_MAX: usize = 1_000;

/// Asks other servers for keys. Implementations bound the time, the size and the number of requests to each server.
pub trait RemoteKeys: fmt::Debug + Send + Sync {
    /// `POST /user/keys/query`
    fn query<'a>(&'a self, server: &'a ServerName, wanted: Wanted) -> BoxFuture<'a, Result<UsersKeys>>;
    /// `POST /user/keys/claim`
    fn claim<'a>(&'a self, server: &'a ServerName, wanted: Claims) -> BoxFuture<'a, Result<ClaimedKeys>>;
    /// `GET /user/devices/{userId}`
    fn devices<'a>(&'a self, user_id: &'a UserId) -> BoxFuture<'a, Result<DeviceList>>;
}

/// A server without others: every question fails.
#[derive(Debug, Clone, Copy)]
pub struct Alone;

impl Alone {
    fn refuse<'a, T: Send + 'a>(server: &ServerName) -> BoxFuture<'a, Result<T>> {
        let problem = "federation is off".to_owned();
        let error = Error::Remote { server: server.to_owned(), problem, status: None, matrix: None };
        Box::pin(std::future::ready(Err(error)))
    }
}

impl RemoteKeys for Alone {
    fn query<'a>(&'a self, server: &'a ServerName, _: Wanted) -> BoxFuture<'a, Result<UsersKeys>> {
        Self::refuse(server)
    }

    fn claim<'a>(&'a self, server: &'a ServerName, _: Claims) -> BoxFuture<'a, Result<ClaimedKeys>> {
        Self::refuse(server)
    }

    fn devices<'a>(&'a self, user_id: &'a UserId) -> BoxFuture<'a, Result<DeviceList>> {
        Self::refuse(user_id.server_name())
    }
}

/// What a client is told of a server that did not answer.
pub(super) fn failure(words: &str) -> Value {
    json!({ "status": 503, "errcode": "M_UNKNOWN", "error": words })
}

/// What to ask one server, and how each user's answer is kept.
#[derive(Debug, Default)]
struct Questions {
    /// For one request.
    together: Wanted,
    /// For a request each: their copies missed an update.
    singly: Vec<OwnedUserId>,
}

/// A user whose keys are kept, and how often their copy had become stale when we began to ask.
type Followed = HashMap<OwnedUserId, (i64, i64)>;

impl Keys {
    /// Keys of other servers' users: from copies, else from their servers.
    pub(super) async fn query_remote(
        &self,
        viewer: Viewer<'_>,
        wanted: &Wanted,
        timeout: Duration,
    ) -> Result<UsersKeys> {
        let (fresh, followed, questions) = self.what_to_ask(wanted).await?;
        let mut answer = self.stored_keys(viewer, &fresh).await?;
        let mut fetched = Wanted::new();
        let asked = questions.into_iter().map(|(server, questions)| async move {
            let reply = tokio::time::timeout(timeout, self.ask(&server, questions)).await;
            (server, reply)
        });
        let mut asked = stream::iter(asked).buffer_unordered(SERVERS_AT_ONCE);
        while let Some((server, reply)) = asked.next().await {
            let lists = match reply {
                Ok(Ok(lists)) => lists,
                Ok(Err(error)) => {
                    answer.failures.insert(server.to_string(), failure(&error.to_string()));
                    continue;
                }
                Err(_) => {
                    answer.failures.insert(server.to_string(), failure("it did not answer in time"));
                    continue;
                }
            };
            for (stream_id, list) in lists {
                let Some(devices) = wanted.get(&list.user_id) else { continue };
                match followed.get(&list.user_id) {
                    Some((user_nid, ver)) => {
                        self.keep(*user_nid, *ver, stream_id, &list).await?;
                        fetched.insert(list.user_id, devices.clone());
                    }
                    None => put_list(&mut answer, list, devices),
                }
            }
        }
        let kept = self.stored_keys(viewer, &fetched).await?;
        answer.devices.extend(kept.devices);
        answer.master.extend(kept.master);
        answer.self_signing.extend(kept.self_signing);
        Ok(answer)
    }

    /// Sort users into those with a good copy, those to ask for and keep, and those to ask for.
    async fn what_to_ask(&self, wanted: &Wanted) -> Result<(Wanted, Followed, BTreeMap<OwnedServerName, Questions>)> {
        let ids: Vec<&UserId> = wanted.keys().map(|user_id| &**user_id).collect();
        let known: HashMap<&UserId, i64> = self.cx.numbers.users_if_known(&ids).await?.into_iter().collect();
        let nids: Vec<i64> = known.values().copied().collect();
        let mut tx = self.cx.store.read().await?;
        let shared: HashSet<i64> = sharing::with_local_users(&mut tx, &nids).await?.into_iter().collect();
        let lists = remote_device_lists::of_users(&mut tx, &nids).await?;
        drop(tx);
        let lists: HashMap<i64, _> = lists.into_iter().map(|list| (list.user_nid, list)).collect();

        let (mut fresh, mut followed) = (Wanted::new(), Followed::new());
        let mut questions: BTreeMap<OwnedServerName, Questions> = BTreeMap::new();
        let mut first_time = Vec::new();
        for (user_id, devices) in wanted {
            let nid = known.get(&**user_id).copied().filter(|nid| shared.contains(nid));
            let list = nid.and_then(|nid| lists.get(&nid));
            if list.is_some_and(|list| !list.is_stale) {
                fresh.insert(user_id.clone(), devices.clone());
                continue;
            }
            let questions = questions.entry(user_id.server_name().to_owned()).or_default();
            match (nid, list) {
                (Some(nid), Some(list)) if list.ver > 0 => {
                    followed.insert(user_id.clone(), (nid, list.ver));
                    questions.singly.push(user_id.clone());
                }
                (Some(nid), list) => {
                    followed.insert(user_id.clone(), (nid, 0));
                    questions.together.insert(user_id.clone(), Vec::new());
                    if list.is_none() {
                        first_time.push(nid);
                    }
                }
                (None, _) => drop(questions.together.insert(user_id.clone(), devices.clone())),
            }
        }
        if !first_time.is_empty() {
            let mut tx = self.cx.store.begin().await?;
            remote_device_lists::expect(&mut tx, &first_time).await?;
            tx.commit().await?;
        }
        Ok((fresh, followed, questions))
    }

    /// Put questions to one server. Each list comes with the number of the last update in it, when the server says.
    async fn ask(&self, server: &ServerName, questions: Questions) -> Result<Vec<(Option<u64>, DeviceList)>> {
        let mut lists = Vec::new();
        if !questions.together.is_empty() {
            let users: Vec<OwnedUserId> = questions.together.keys().cloned().collect();
            let mut keys = self.remote.query(server, questions.together).await?;
            lists.extend(users.into_iter().map(|user_id| (None, take_list(&mut keys, user_id))));
        }
        let singly = questions.singly.into_iter().map(|user_id| async move { self.remote.devices(&user_id).await });
        let mut singly = stream::iter(singly).buffer_unordered(USERS_AT_ONCE);
        while let Some(list) = singly.next().await {
            let list = list?;
            lists.push((Some(list.stream_id), list));
        }
        Ok(lists)
    }

    /// Keep a copy of a user's keys; it is fresh unless an update came since `ver` was read.
    async fn keep(&self, user_nid: i64, ver: i64, stream_id: Option<u64>, list: &DeviceList) -> Result<()> {
        let mut tx = self.cx.store.begin().await?;
        locks::user(&mut tx, user_nid).await?;
        device_keys::remove_all(&mut tx, user_nid).await?;
        for device in list.devices.iter().take(DEVICES_PER_USER_MAX) {
            if let Some(row) = device_row(user_nid, &list.user_id, device) {
                device_keys::put(&mut tx, &row).await?;
            }
        }
        put_identity(&mut tx, user_nid, &list.user_id, "master", list.master.as_ref()).await?;
        put_identity(&mut tx, user_nid, &list.user_id, "self_signing", list.self_signing.as_ref()).await?;
        let stream_id = stream_id.and_then(|id| i64::try_from(id).ok());
        remote_device_lists::mark_fresh(&mut tx, user_nid, ver, stream_id).await?;
        tx.commit().await?;
        Ok(())
    }

    /// An update of a device of another server's user: `m.device_list_update`. Ours who share a room with the user are told.
    ///
    /// # Errors
    /// [`Error::Forbidden`] when the server speaks for a user who is not its own.
    pub async fn receive_device_update(&self, origin: &ServerName, update: &DeviceListUpdateContent) -> Result<()> {
        let Some(user_nid) = self.followed(origin, &update.user_id).await? else { return Ok(()) };
        let nid = self.change_numbers(1).await?.start;
        let mut tx = self.cx.store.begin().await?;
        locks::user(&mut tx, user_nid).await?;
        let list = remote_device_lists::of_users(&mut tx, &[user_nid]).await?.pop();
        let stream_id = js_int(update.stream_id);
        if let Some(list) = list {
            let known = list.stream_id.filter(|_| !list.is_stale);
            if known.is_some_and(|known| stream_id <= known) {
                return Ok(tx.rollback().await?);
            }
            if !apply(&mut tx, user_nid, known, update).await? {
                remote_device_lists::outdate(&mut tx, &[user_nid]).await?;
            }
        }
        let change = NewChange { nid, user_nid, device_id: update.device_id.as_str(), viewer_nid: 0 };
        device_changes::put(&mut tx, &[change]).await?;
        self.publish(tx.commit().await?, user_nid);
        Ok(())
    }

    /// An update of another server's user's own keys: `m.signing_key_update`.
    ///
    /// # Errors
    /// [`Error::Forbidden`] when the server speaks for a user who is not its own; [`Error::Invalid`] for keys that are none.
    pub async fn receive_signing_key_update(
        &self,
        origin: &ServerName,
        update: &SigningKeyUpdateContent,
    ) -> Result<()> {
        let Some(user_nid) = self.followed(origin, &update.user_id).await? else { return Ok(()) };
        let nid = self.change_numbers(1).await?.start;
        let mut tx = self.cx.store.begin().await?;
        locks::user(&mut tx, user_nid).await?;
        let list = remote_device_lists::of_users(&mut tx, &[user_nid]).await?.pop();
        if list.is_some_and(|list| list.is_stale) {
            // What is being fetched now may be older than this.
            remote_device_lists::outdate(&mut tx, &[user_nid]).await?;
        }
        for (usage, key) in [("master", &update.master_key), ("self_signing", &update.self_signing_key)] {
            if let Some(key) = key {
                let key = well_formed(&update.user_id, usage, key)?;
                cross_signing::put(&mut tx, &row(user_nid, &key)?).await?;
            }
        }
        let change = NewChange { nid, user_nid, device_id: "", viewer_nid: 0 };
        device_changes::put(&mut tx, &[change]).await?;
        self.publish(tx.commit().await?, user_nid);
        Ok(())
    }

    /// The number of a user of `origin` who shares a room with one of ours. Updates of others are of no use to us.
    async fn followed(&self, origin: &ServerName, user_id: &UserId) -> Result<Option<i64>> {
        if user_id.server_name() != origin || self.cx.is_us(origin) {
            return Err(Error::forbidden("a server speaks for its own users alone"));
        }
        let Some(user_nid) = self.cx.numbers.user_if_known(user_id).await? else { return Ok(None) };
        let mut tx = self.cx.store.read().await?;
        let shared = sharing::with_local_users(&mut tx, &[user_nid]).await?;
        Ok((!shared.is_empty()).then_some(user_nid))
    }
}

/// Bring a fresh copy up to date. False when that cannot be done: the copy is to be fetched anew.
async fn apply(tx: &mut Tx, user_nid: i64, known: Option<i64>, update: &DeviceListUpdateContent) -> Result<bool> {
    let Some(known) = known else { return Ok(false) };
    let is_next = !update.prev_id.is_empty() && update.prev_id.iter().all(|prev| js_int(*prev) <= known);
    if !is_next {
        return Ok(false);
    }
    if update.deleted == Some(true) {
        device_keys::forget(tx, user_nid, &[update.device_id.to_string()]).await?;
    } else {
        let Some(keys) = update.keys.clone() else { return Ok(false) };
        let display_name = update.device_display_name.clone();
        let device = ListedDevice { device_id: update.device_id.clone(), keys, display_name };
        let Some(row) = device_row(user_nid, &update.user_id, &device) else { return Ok(false) };
        if device_keys::of_users(tx, &[user_nid]).await?.len() >= DEVICES_PER_USER_MAX {
            return Ok(false);
        }
        device_keys::put(tx, &row).await?;
    }
    Ok(remote_device_lists::advance(tx, user_nid, known, js_int(update.stream_id)).await?)
}

fn js_int(value: ruma::UInt) -> i64 {
    i64::from(ruma::Int::from(value))
}

/// A device as we store it; `None` when its keys name another device or user, or are too large.
fn device_row(user_nid: i64, user_id: &UserId, device: &ListedDevice) -> Option<device_keys::DeviceKeys> {
    if device.keys.json().get().len() > DEVICE_KEYS_BYTES_MAX {
        return None;
    }
    let keys = device.keys.deserialize().ok()?;
    if keys.user_id != user_id || keys.device_id != device.device_id {
        return None;
    }
    let mut object = signed_json::object(&device.keys).ok()?;
    object.remove("unsigned");
    Some(device_keys::DeviceKeys {
        user_nid,
        device_id: device.device_id.to_string(),
        body: serde_json::to_string(&object).ok()?,
        display_name: device.display_name.clone().or(keys.unsigned.device_display_name),
    })
}

/// Store a key of a user's own, or its absence. One that is not well-formed counts as absent.
async fn put_identity(
    tx: &mut Tx,
    user_nid: i64,
    user_id: &UserId,
    usage: &'static str,
    key: Option<&Raw<CrossSigningKey>>,
) -> Result<()> {
    match key.and_then(|key| well_formed(user_id, usage, key).ok()) {
        Some(key) => cross_signing::put(tx, &row(user_nid, &key)?).await?,
        None => cross_signing::remove(tx, user_nid, usage).await?,
    }
    Ok(())
}

/// One user's part of an answer about many.
fn take_list(keys: &mut UsersKeys, user_id: OwnedUserId) -> DeviceList {
    let devices = keys.devices.remove(&user_id).unwrap_or_default().into_iter();
    let devices = devices.map(|(device_id, keys): (_, Raw<DeviceKeys>)| {
        let display_name = display_name(&keys);
        ListedDevice { device_id, keys, display_name }
    });
    DeviceList {
        devices: devices.collect(),
        stream_id: 0,
        master: keys.master.remove(&user_id),
        self_signing: keys.self_signing.remove(&user_id),
        user_id,
    }
}

/// Put a list that is not kept into an answer.
fn put_list(answer: &mut UsersKeys, list: DeviceList, wanted: &[ruma::OwnedDeviceId]) {
    let devices = list.devices.into_iter().filter(|device| wanted.is_empty() || wanted.contains(&device.device_id));
    let is_theirs = |keys: &Raw<DeviceKeys>, user_id: &UserId| keys.deserialize().is_ok_and(|k| k.user_id == user_id);
    let devices = devices.filter(|device| is_theirs(&device.keys, &list.user_id));
    let devices: BTreeMap<_, _> = devices.map(|device| (device.device_id, device.keys)).collect();
    if !devices.is_empty() {
        answer.devices.insert(list.user_id.clone(), devices);
    }
    if let Some(key) = list.master {
        answer.master.insert(list.user_id.clone(), key);
    }
    if let Some(key) = list.self_signing {
        answer.self_signing.insert(list.user_id, key);
    }
}
