//! Keys and messages between servers: two servers in one process, joined at the seams where the network would be.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use ruma::{
    OneTimeKeyAlgorithm, OwnedServerName, OwnedUserId, ServerName, UserId,
    api::federation::transactions::edu::{DirectDeviceContent, Edu},
    serde::Raw,
    to_device::DeviceIdOrAllDevices,
};
use serde_json::{Value, json};
use services::{
    Context, Error, Result,
    accounts::User,
    clock::{Clock, Randomness},
    context::Ground,
    federation::signing::SigningKey,
    keys::{
        self, ClaimedKeys, Claims, DeviceList, Keys, UsersKeys, Wanted,
        remote::{Alone, RemoteKeys},
        upload::Upload,
    },
    notify::Notify,
    to_device::{Messages, Outbox, ToDevice},
};
use storage::{Settings, Store, devices, members, numbers::Numbers, to_device};

const OURS: &str = "ours.example";
const THEIRS: &str = "theirs.example";

/// A server without HTTP.
struct Server {
    cx: Context,
    keys: Keys,
}

async fn context(name: &str) -> Context {
    let store = Store::connect(&Settings::new("sqlite::memory:")).await.unwrap();
    let server_name = OwnedServerName::try_from(name).unwrap();
    let randomness = Randomness::seeded(3);
    Context::new(Ground {
        numbers: Numbers::new(store.clone(), &server_name),
        notify: Notify::start(store.clone()).await.unwrap(),
        clock: Clock::fixed(1_767_225_600_000),
        signing_key: SigningKey::generate(&randomness).unwrap().2,
        randomness,
        server_name,
        store,
    })
}

impl Server {
    async fn start(name: &str, remote: Arc<dyn RemoteKeys>, settings: keys::Settings) -> Self {
        let cx = context(name).await;
        Self { keys: Keys::new(cx.clone(), settings, remote), cx }
    }

    /// A local user with one device.
    async fn user(&self, localpart: &str, device_id: &str) -> User {
        let user_id = OwnedUserId::try_from(format!("@{localpart}:{}", self.cx.server_name)).unwrap();
        let nid = self.cx.numbers.user(&user_id).await.unwrap();
        let mut tx = self.cx.store.begin().await.unwrap();
        let device = devices::Device {
            user_nid: nid,
            device_id: device_id.into(),
            display_name: Some("Kitchen".into()),
            created_ms: 0,
            last_seen_ms: None,
            last_seen_ip: None,
            last_seen_agent: None,
        };
        devices::create(&mut tx, &device).await.unwrap();
        tx.commit().await.unwrap();
        User {
            user_id,
            nid,
            device_id: Some(device_id.into()),
            token_hash: "".into(),
            appservice: None,
            is_admin: false,
            is_locked: false,
            is_suspended: false,
            is_guest: false,
            is_rate_limited: false,
        }
    }

    /// Users joined to room 1.
    async fn joins(&self, users: &[&UserId], membership: &str) {
        for user in users {
            let user_nid = self.cx.numbers.user(user).await.unwrap();
            let mut tx = self.cx.store.begin().await.unwrap();
            let member = members::NewMember { room_nid: 1, user_nid, membership, event_nid: user_nid };
            members::put(&mut tx, &[member]).await.unwrap();
            tx.commit().await.unwrap();
        }
    }

    /// What `viewer` is told of the device of `user`: `None` when it is not shown.
    async fn shown(&self, viewer: &User, user: &UserId, device: &str) -> Option<Value> {
        let keys = self.query(viewer, user).await;
        let raw = keys.devices.get(user)?.get(<&ruma::DeviceId>::from(device))?.clone();
        Some(serde_json::from_str(raw.json().get()).unwrap())
    }

    async fn query(&self, viewer: &User, user: &UserId) -> UsersKeys {
        let wanted = Wanted::from([(user.to_owned(), Vec::new())]);
        self.keys.query(viewer, &wanted, Some(Duration::from_secs(5))).await.unwrap()
    }
}

fn device_keys(user: &User, curve25519: &str) -> Upload {
    let device = user.device_id.as_ref().unwrap();
    let keys = json!({
        "user_id": user.user_id, "device_id": device, "algorithms": [], "signatures": {},
        "keys": { format!("curve25519:{device}"): curve25519 },
    });
    Upload { device_keys: Some(raw(&keys)), ..Upload::default() }
}

fn raw<T>(value: &Value) -> Raw<T> {
    Raw::from_json_string(value.to_string()).unwrap()
}

/// The network to the other server: asks its services, counts, and can be cut.
#[derive(Default)]
struct Wire {
    to: Mutex<Option<Keys>>,
    queries: AtomicUsize,
    device_lists: AtomicUsize,
    is_cut: AtomicBool,
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Wire")
    }
}

impl Wire {
    fn other(&self, server: &ServerName) -> Result<Keys> {
        if self.is_cut.load(Ordering::SeqCst) {
            let problem = "cut".to_owned();
            return Err(Error::Remote { server: server.to_owned(), problem, status: None, matrix: None });
        }
        Ok(self.to.lock().unwrap().clone().unwrap())
    }

    fn asked(&self) -> (usize, usize) {
        (self.queries.load(Ordering::SeqCst), self.device_lists.load(Ordering::SeqCst))
    }
}

impl RemoteKeys for Wire {
    fn query<'a>(&'a self, server: &'a ServerName, wanted: Wanted) -> BoxFuture<'a, Result<UsersKeys>> {
        self.queries.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move { self.other(server)?.query_for_peer(OURS.try_into().unwrap(), &wanted).await })
    }

    fn claim<'a>(&'a self, server: &'a ServerName, wanted: Claims) -> BoxFuture<'a, Result<ClaimedKeys>> {
        Box::pin(async move { self.other(server)?.claim_for_peer(OURS.try_into().unwrap(), &wanted).await })
    }

    fn devices<'a>(&'a self, user_id: &'a UserId) -> BoxFuture<'a, Result<DeviceList>> {
        self.device_lists.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move { self.other(user_id.server_name())?.devices_of(user_id).await })
    }
}

/// Alice is ours; Bob is theirs, with keys; they share a room.
struct Pair {
    ours: Server,
    theirs: Server,
    wire: Arc<Wire>,
    alice: User,
    bob: User,
    /// How far Bob's server has told us of changes.
    told: i64,
}

impl Pair {
    async fn meet() -> Self {
        Self::meet_with(keys::Settings { tells_device_names: true, ..keys::Settings::default() }).await
    }

    async fn meet_with(theirs: keys::Settings) -> Self {
        let wire = Arc::new(Wire::default());
        let ours = Server::start(OURS, Arc::clone(&wire) as Arc<dyn RemoteKeys>, keys::Settings::default()).await;
        let theirs = Server::start(THEIRS, Arc::new(Alone), theirs).await;
        *wire.to.lock().unwrap() = Some(theirs.keys.clone());
        let alice = ours.user("alice", "A").await;
        let bob = theirs.user("bob", "B").await;
        theirs.keys.upload(&bob, &device_keys(&bob, "first")).await.unwrap();
        ours.joins(&[&alice.user_id, &bob.user_id], "join").await;
        let told = theirs.cx.notify.stable();
        Self { ours, theirs, wire, alice, bob, told }
    }

    /// The updates that Bob's server has for ours now.
    async fn updates(&mut self) -> Vec<Edu> {
        let until = self.theirs.cx.notify.stable();
        let updates = self.theirs.keys.updates_for_peers(self.told, until, 100).await.unwrap();
        self.told = until;
        updates.into_iter().map(|update| update.edu).collect()
    }

    async fn receive(&self, edu: &Edu) {
        let origin = THEIRS.try_into().unwrap();
        match edu {
            Edu::DeviceListUpdate(update) => self.ours.keys.receive_device_update(origin, update).await.unwrap(),
            Edu::SigningKeyUpdate(update) => self.ours.keys.receive_signing_key_update(origin, update).await.unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// Bob changes his device's key; returns the update.
    async fn bob_changes(&mut self, curve25519: &str) -> Edu {
        self.theirs.keys.upload(&self.bob, &device_keys(&self.bob, curve25519)).await.unwrap();
        self.updates().await.pop().unwrap()
    }

    /// The key of Bob's device as Alice is told.
    async fn alice_sees(&self) -> Option<String> {
        let shown = self.ours.shown(&self.alice, &self.bob.user_id, "B").await?;
        Some(shown["keys"]["curve25519:B"].as_str().unwrap().to_owned())
    }

    /// Whose keys Alice is told to look at anew since `since`.
    async fn changed_for_alice(&self, since: i64) -> Vec<OwnedUserId> {
        let until = self.ours.cx.notify.stable();
        self.ours.keys.device_lists(self.alice.nid, since, until).await.unwrap().changed
    }
}

#[tokio::test]
async fn keys_of_a_user_who_shares_a_room_are_asked_for_once() {
    let pair = Pair::meet().await;

    for _ in 0..3 {
        assert_eq!(pair.alice_sees().await.as_deref(), Some("first"));
    }

    assert_eq!(pair.wire.asked(), (1, 0));
    let shown = pair.ours.shown(&pair.alice, &pair.bob.user_id, "B").await.unwrap();
    assert_eq!(shown["unsigned"]["device_display_name"], "Kitchen");
}

#[tokio::test]
async fn device_names_are_told_to_no_other_server_unless_the_operator_wants_it() {
    let pair = Pair::meet_with(keys::Settings::default()).await;

    let shown = pair.ours.shown(&pair.alice, &pair.bob.user_id, "B").await.unwrap();

    assert_eq!(shown.get("unsigned"), None);
}

#[tokio::test]
async fn keys_of_a_user_who_shares_no_room_are_asked_for_each_time() {
    let pair = Pair::meet().await;
    pair.ours.joins(&[&pair.bob.user_id], "leave").await;

    for _ in 0..2 {
        assert_eq!(pair.alice_sees().await.as_deref(), Some("first"));
    }

    assert_eq!(pair.wire.asked(), (2, 0));
}

#[tokio::test]
async fn an_update_after_a_copy_without_a_number_makes_us_fetch_a_numbered_one_and_the_next_is_applied() {
    let mut pair = Pair::meet().await;
    pair.alice_sees().await;
    let since = pair.ours.cx.notify.stable();

    let update = pair.bob_changes("second").await;
    pair.receive(&update).await;
    assert_eq!(pair.changed_for_alice(since).await, [pair.bob.user_id.clone()]);
    assert_eq!(pair.alice_sees().await.as_deref(), Some("second"));
    assert_eq!(pair.wire.asked(), (1, 1));

    let update = pair.bob_changes("third").await;
    pair.receive(&update).await;
    assert_eq!(pair.alice_sees().await.as_deref(), Some("third"));
    assert_eq!(pair.wire.asked(), (1, 1), "the update said it all");
}

#[tokio::test]
async fn a_missing_update_makes_us_fetch_the_list_anew() {
    let mut pair = Pair::meet().await;
    pair.alice_sees().await;
    let update = pair.bob_changes("second").await;
    pair.receive(&update).await;
    pair.alice_sees().await;

    pair.bob_changes("lost").await;
    let update = pair.bob_changes("last").await;
    pair.receive(&update).await;

    assert_eq!(pair.alice_sees().await.as_deref(), Some("last"));
    assert_eq!(pair.wire.asked(), (1, 2));
}

#[tokio::test]
async fn an_old_update_changes_nothing() {
    let mut pair = Pair::meet().await;
    pair.alice_sees().await;
    let first = pair.bob_changes("second").await;
    pair.receive(&first).await;
    pair.alice_sees().await;
    let second = pair.bob_changes("third").await;
    pair.receive(&second).await;
    let since = pair.ours.cx.notify.stable();

    pair.receive(&first).await;
    pair.receive(&second).await;

    assert_eq!(pair.alice_sees().await.as_deref(), Some("third"));
    assert_eq!(pair.changed_for_alice(since).await, [] as [OwnedUserId; 0]);
    assert_eq!(pair.wire.asked(), (1, 1));
}

#[tokio::test]
async fn a_device_that_goes_is_told_and_goes() {
    let mut pair = Pair::meet().await;
    pair.alice_sees().await;
    let update = pair.bob_changes("second").await;
    pair.receive(&update).await;
    pair.alice_sees().await;

    pair.theirs.keys.forget_devices(pair.bob.nid, &["B".into()]).await.unwrap();
    for update in pair.updates().await {
        pair.receive(&update).await;
    }

    assert_eq!(pair.alice_sees().await, None);
    assert_eq!(pair.wire.asked(), (1, 1));
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_named_and_its_users_left_out() {
    let pair = Pair::meet().await;
    pair.wire.is_cut.store(true, Ordering::SeqCst);

    let answer = pair.ours.query(&pair.alice, &pair.bob.user_id).await;
    assert_eq!(answer.failures.keys().collect::<Vec<_>>(), [THEIRS]);
    assert!(answer.devices.is_empty());

    pair.wire.is_cut.store(false, Ordering::SeqCst);
    assert_eq!(pair.alice_sees().await.as_deref(), Some("first"));
}

#[tokio::test]
async fn a_server_speaks_for_its_own_users_alone() {
    let mut pair = Pair::meet().await;
    let Edu::DeviceListUpdate(update) = pair.bob_changes("second").await else { panic!("not an update of a device") };

    let stranger = "stranger.example".try_into().unwrap();

    let refused = pair.ours.keys.receive_device_update(stranger, &update).await;
    assert!(matches!(refused, Err(Error::Forbidden(_))));
}

#[tokio::test]
async fn updates_of_users_who_share_no_room_leave_nothing_behind() {
    let mut pair = Pair::meet().await;
    pair.ours.joins(&[&pair.bob.user_id], "leave").await;
    let before = pair.ours.cx.notify.stable();

    let update = pair.bob_changes("second").await;
    pair.receive(&update).await;

    assert_eq!(pair.ours.cx.notify.stable(), before);
}

#[tokio::test]
async fn keys_under_another_users_or_devices_name_are_not_kept() {
    let mut pair = Pair::meet().await;
    pair.alice_sees().await;
    let update = pair.bob_changes("second").await;
    pair.receive(&update).await;
    pair.alice_sees().await;
    let Edu::DeviceListUpdate(mut update) = pair.bob_changes("third").await else {
        panic!("not an update of a device")
    };

    update.device_id = "OTHER".into();
    pair.receive(&Edu::DeviceListUpdate(update)).await;

    assert!(pair.ours.shown(&pair.alice, &pair.bob.user_id, "OTHER").await.is_none());
    assert_eq!(pair.alice_sees().await.as_deref(), Some("third"));
}

#[tokio::test]
async fn a_master_key_of_another_server_is_told_and_shown() {
    let mut pair = Pair::meet().await;
    pair.alice_sees().await;
    let public_key = "L9HTzD2pyBTaCnBKQbRF/ONIktUM8cQGkhp7rPWnCzA";
    let key = json!({
        "user_id": pair.bob.user_id, "usage": ["master"], "keys": { format!("ed25519:{public_key}"): public_key },
    });
    let identity = keys::cross_signing::Identity { master: Some(raw(&key)), ..Default::default() };
    pair.theirs.keys.publish_identity(&pair.bob, &identity, false).await.unwrap();

    for update in pair.updates().await {
        pair.receive(&update).await;
    }

    let shown = pair.ours.query(&pair.alice, &pair.bob.user_id).await;
    let shown: Value = serde_json::from_str(shown.master[&pair.bob.user_id].json().get()).unwrap();
    assert_eq!(shown, key);
}

#[tokio::test]
async fn one_time_keys_of_another_server_are_claimed_there_and_once() {
    let pair = Pair::meet().await;
    let key = json!({ "key": "zKbLg+NrIjpnagy+pIY6uPL4ZwEG2v+8F9lmgsnlZzs", "signatures": {} });
    let mut upload = Upload::default();
    upload.one_time_keys.insert("signed_curve25519:1".try_into().unwrap(), raw(&key));
    pair.theirs.keys.upload(&pair.bob, &upload).await.unwrap();

    let device = BTreeMap::from([("B".into(), OneTimeKeyAlgorithm::SignedCurve25519)]);
    let claims = Claims::from([(pair.bob.user_id.clone(), device)]);
    let first = pair.ours.keys.claim(&claims, None).await.unwrap();
    let second = pair.ours.keys.claim(&claims, None).await.unwrap();

    assert_eq!(first.keys[&pair.bob.user_id].len(), 1);
    assert!(second.keys.is_empty() && second.failures.is_empty());
}

#[tokio::test]
async fn another_server_can_take_no_keys_of_third_ones_through_us() {
    let pair = Pair::meet().await;
    let device = BTreeMap::from([("B".into(), OneTimeKeyAlgorithm::SignedCurve25519)]);
    let claims = Claims::from([(pair.bob.user_id.clone(), device)]);
    let wanted = Wanted::from([(pair.bob.user_id.clone(), Vec::new())]);
    let stranger = "stranger.example".try_into().unwrap();

    assert!(pair.ours.keys.claim_for_peer(stranger, &claims).await.unwrap().keys.is_empty());
    assert!(pair.ours.keys.query_for_peer(stranger, &wanted).await.unwrap().devices.is_empty());
    assert!(matches!(pair.ours.keys.devices_of(&pair.bob.user_id).await, Err(Error::NotFound(_))));
    assert_eq!(pair.wire.asked(), (0, 0));
}

/// Takes everything and counts its rings.
#[derive(Debug, Default)]
struct Bell(AtomicUsize);

impl Outbox for Bell {
    fn accepts(&self, server: &ServerName) -> bool {
        server == THEIRS
    }

    fn ring(&self, servers: &[OwnedServerName]) {
        self.0.fetch_add(servers.len(), Ordering::SeqCst);
    }
}

fn messages(user: &UserId, contents: &[(&str, Value)]) -> Messages {
    let devices = contents
        .iter()
        .map(|(device, content)| (DeviceIdOrAllDevices::try_from(*device).unwrap(), raw(content)))
        .collect();
    Messages::from([(user.to_owned(), devices)])
}

/// The EDUs that wait for the other server.
async fn queued(server: &Server) -> Vec<DirectDeviceContent> {
    let nid = server.cx.numbers.server(THEIRS.try_into().unwrap()).await.unwrap();
    let mut tx = server.cx.store.read().await.unwrap();
    let rows = to_device::queued(&mut tx, nid, 100).await.unwrap();
    rows.into_iter().map(|(_, body)| serde_json::from_str(&body).unwrap()).collect()
}

async fn inbox(server: &Server, to_device: &ToDevice, user: &User) -> Vec<Value> {
    let device = user.device_id.as_ref().unwrap().as_str();
    let until = server.cx.notify.stable();
    let inbox = to_device.deliver(user.nid, device, 0, until, |_| false).await.unwrap();
    inbox.events.iter().map(|event| serde_json::from_str(event.get()).unwrap()).collect()
}

#[tokio::test]
async fn a_message_to_another_server_waits_for_it_and_arrives_once() {
    let pair = Pair::meet().await;
    let bell = Arc::new(Bell::default());
    let sender = ToDevice::new(pair.ours.cx.clone(), Arc::clone(&bell) as Arc<dyn Outbox>);
    let receiver = ToDevice::new(pair.theirs.cx.clone(), Arc::new(services::to_device::Alone));

    let to_bob = messages(&pair.bob.user_id, &[("*", json!({ "n": 1 }))]);
    sender.send(&pair.alice, "my.type", "txn", &to_bob).await.unwrap();
    sender.send(&pair.alice, "my.type", "txn", &to_bob).await.unwrap();
    let edus = queued(&pair.ours).await;
    for edu in [&edus[0], &edus[0]] {
        receiver.receive(OURS.try_into().unwrap(), edu).await.unwrap();
    }

    assert_eq!((edus.len(), bell.0.load(Ordering::SeqCst)), (1, 1));
    let event = json!({ "sender": pair.alice.user_id, "type": "my.type", "content": { "n": 1 } });
    assert_eq!(inbox(&pair.theirs, &receiver, &pair.bob).await, [event]);
}

#[tokio::test]
async fn many_large_messages_travel_in_several_edus() {
    let pair = Pair::meet().await;
    let sender = ToDevice::new(pair.ours.cx.clone(), Arc::new(Bell::default()));
    let large = json!({ "text": "x".repeat(30_000) });
    let contents = [("D1", large.clone()), ("D2", large.clone()), ("D3", large)];

    sender.send(&pair.alice, "my.type", "txn", &messages(&pair.bob.user_id, &contents)).await.unwrap();

    let edus = queued(&pair.ours).await;
    assert_eq!(edus.len(), 3);
    assert_eq!(edus.iter().map(|edu| &edu.message_id).collect::<std::collections::BTreeSet<_>>().len(), 3);
}

#[tokio::test]
async fn nothing_is_queued_for_servers_we_do_not_send_to() {
    let pair = Pair::meet().await;
    let sender = ToDevice::new(pair.ours.cx.clone(), Arc::new(services::to_device::Alone));

    sender.send(&pair.alice, "my.type", "txn", &messages(&pair.bob.user_id, &[("*", json!({}))])).await.unwrap();

    assert!(queued(&pair.ours).await.is_empty());
}

#[tokio::test]
async fn a_message_in_the_name_of_another_servers_user_is_refused() {
    let pair = Pair::meet().await;
    let receiver = ToDevice::new(pair.theirs.cx.clone(), Arc::new(services::to_device::Alone));
    let mut edu = DirectDeviceContent::new(pair.alice.user_id.clone(), "my.type".into(), "id".into());
    edu.messages = messages(&pair.bob.user_id, &[("*", json!({}))]);

    let refused = receiver.receive("stranger.example".try_into().unwrap(), &edu).await;

    assert!(matches!(refused, Err(Error::Forbidden(_))));
    assert!(inbox(&pair.theirs, &receiver, &pair.bob).await.is_empty());
}

#[tokio::test]
async fn messages_of_excluded_senders_are_not_delivered() {
    let pair = Pair::meet().await;
    let to_device = ToDevice::new(pair.ours.cx.clone(), Arc::new(services::to_device::Alone));
    let eve = pair.ours.user("eve", "E").await;
    for from in [&eve, &pair.alice] {
        let to_alice = messages(&pair.alice.user_id, &[("A", json!({}))]);
        to_device.send(from, "my.type", "txn", &to_alice).await.unwrap();
    }

    let until = pair.ours.cx.notify.stable();
    let inbox = to_device.deliver(pair.alice.nid, "A", 0, until, |sender| sender == eve.user_id).await.unwrap();

    assert_eq!(inbox.events.len(), 1);
    assert!(inbox.events[0].get().contains(pair.alice.user_id.as_str()));
}

/// What is told about a user changes nobody else's business: a change is one row, whoever shares rooms with them.
#[tokio::test]
async fn a_sync_that_knows_who_shares_rooms_learns_of_changes_in_one_statement() {
    let pair = Pair::meet().await;
    let since = pair.ours.cx.notify.stable();
    pair.ours.keys.upload(&pair.alice, &device_keys(&pair.alice, "new")).await.unwrap();
    let carol = pair.ours.user("carol", "C").await;
    pair.ours.keys.upload(&carol, &device_keys(&carol, "new")).await.unwrap();
    let until = pair.ours.cx.notify.stable();
    assert_eq!(until - since, 2);

    let before = pair.ours.cx.store.statement_count();
    let changed = pair.ours.keys.changed(pair.alice.nid, since, until, |_| false).await.unwrap();
    assert_eq!(pair.ours.cx.store.statement_count() - before, 1);
    assert_eq!(changed, [pair.alice.nid]);
    let changed = pair.ours.keys.changed(pair.alice.nid, since, until, |nid| nid == carol.nid).await.unwrap();
    assert_eq!(changed, [pair.alice.nid, carol.nid]);
}

#[tokio::test]
async fn a_device_that_waits_for_nothing_costs_one_statement_to_ask() {
    let pair = Pair::meet().await;
    let to_device = ToDevice::new(pair.ours.cx.clone(), Arc::new(services::to_device::Alone));
    let to_alice = messages(&pair.alice.user_id, &[("A", json!({}))]);
    to_device.send(&pair.alice, "my.type", "txn", &to_alice).await.unwrap();
    let store = &pair.ours.cx.store;
    let until = pair.ours.cx.notify.stable();
    let cost = async |since| {
        let before = store.statement_count();
        to_device.deliver(pair.alice.nid, "A", since, until, |_| false).await.unwrap();
        store.statement_count() - before
    };

    assert_eq!(cost(0).await, 1, "delivery");
    assert_eq!(cost(until).await, 2, "acknowledgement");
    assert_eq!(cost(until).await, 1, "nothing");
}
