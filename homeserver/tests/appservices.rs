//! Application services, played by a small server of their own: what they are told, and what they may ask.

mod fixture;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
};

use axum::{
    Router,
    body::Bytes,
    extract::{Request, State},
    http::{Method, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use fixture::{Client, TestServer, fresh_postgres, settings};
use room::build::Draft;
use ruma::{EventId, OwnedUserId, RoomVersionId, user_id};
use serde_json::{Value, json, value::to_raw_value};
use services::{
    accounts::Masquerade,
    appservices::registry::Hidden,
    clock::Randomness,
    receipts::{Kind, Lane},
    timeline::{Wish, now::RoomNow},
};
use storage::Store;
use tokio::sync::mpsc;

/// A request that came to the application service.
#[derive(Debug)]
struct Asked {
    method: Method,
    path: String,
    token: String,
    body: Value,
}

#[derive(Clone)]
struct Playing {
    asked: mpsc::UnboundedSender<Asked>,
    status: Arc<AtomicU16>,
    answers: Arc<HashMap<&'static str, Value>>,
}

/// The other side: an application service on loopback.
struct Bridge {
    url: String,
    asked: mpsc::UnboundedReceiver<Asked>,
    /// What it answers everything with.
    status: Arc<AtomicU16>,
}

impl Bridge {
    async fn start() -> Self {
        Self::answering(HashMap::new()).await
    }

    /// With these bodies at these paths.
    async fn answering(answers: HashMap<&'static str, Value>) -> Self {
        let (asked, received) = mpsc::unbounded_channel();
        let status = Arc::new(AtomicU16::new(200));
        let playing = Playing { asked, status: Arc::clone(&status), answers: Arc::new(answers) };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(play).with_state(playing);
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, asked: received, status }
    }

    fn registration(&self, more: &Value) -> Hidden {
        registration(Some(&self.url), more)
    }

    fn answer_with(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    async fn next(&mut self) -> Asked {
        self.asked.recv().await.unwrap()
    }

    /// The next transaction's events.
    async fn next_events(&mut self) -> Vec<Value> {
        let asked = self.next().await;
        assert!(asked.path.starts_with("/_matrix/app/v1/transactions/"), "{asked:?}");
        asked.body["events"].as_array().unwrap().clone()
    }
}

async fn play(State(playing): State<Playing>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body: Bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let path = parts.uri.to_string();
    let token = parts.headers.get(header::AUTHORIZATION).map(|token| token.to_str().unwrap().to_owned());
    let answer = playing.answers.get(&*path).cloned();
    let asked = Asked {
        method: parts.method,
        path,
        token: token.unwrap_or_default(),
        body: serde_json::from_slice(&body).unwrap_or_default(),
    };
    let _ = playing.asked.send(asked);
    let status = StatusCode::from_u16(playing.status.load(Ordering::SeqCst)).unwrap();
    match answer {
        Some(answer) => axum::Json(answer).into_response(),
        None if !playing.answers.is_empty() => StatusCode::NOT_FOUND.into_response(),
        None => (status, axum::Json(json!({}))).into_response(),
    }
}

fn registration(url: Option<&str>, more: &Value) -> Hidden {
    let mut all = json!({
        "id": "irc", "url": url, "as_token": "as-secret", "hs_token": "hs-secret", "sender_localpart": "irc_bot",
        "namespaces": { "users": [{ "exclusive": true, "regex": "@irc_.*" }] },
    });
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Hidden(all.to_string())
}

async fn server_with(registration: Hidden) -> TestServer {
    let mut settings = settings();
    settings.appservices.registry.texts = vec![registration];
    TestServer::start_with(settings).await
}

fn as_appservice(server: &TestServer) -> Client {
    server.anonymous().with_token("as-secret")
}

fn state(kind: &str, key: &str, sender: &OwnedUserId, content: Value) -> Wish {
    Draft::state(kind, key, sender.clone(), to_raw_value(&content).unwrap()).into()
}

fn message(sender: &OwnedUserId, body: &str) -> Draft {
    let content = json!({ "msgtype": "m.text", "body": body });
    Draft::message("m.room.message", sender.clone(), to_raw_value(&content).unwrap())
}

/// A public room that `creator` made and is in.
async fn room(server: &TestServer, creator: &OwnedUserId) -> Arc<RoomNow> {
    let create = json!({ "room_version": "11", "creator": creator });
    let create = Draft::state("m.room.create", "", creator.clone(), to_raw_value(&create).unwrap());
    let wishes = vec![
        state("m.room.member", creator.as_str(), creator, json!({ "membership": "join" })),
        state("m.room.power_levels", "", creator, json!({ "users": { creator.as_str(): 100 } })),
        state("m.room.join_rules", "", creator, json!({ "join_rule": "public" })),
    ];
    let id = format!("!{}:example.org", Randomness::system().letters(10)).try_into().unwrap();
    server.services.timeline.create(&RoomVersionId::V11, create, Some(id), |_| wishes).await.unwrap()
}

async fn joins(server: &TestServer, room: &RoomNow, user: &OwnedUserId) {
    let join = state("m.room.member", user.as_str(), user, json!({ "membership": "join" }));
    server.services.timeline.append(room.nid, join).await.unwrap();
}

async fn says(server: &TestServer, room: &RoomNow, user: &OwnedUserId, body: &str) -> String {
    server.services.timeline.append(room.nid, message(user, body)).await.unwrap().event_id.to_string()
}

fn bodies(events: &[Value]) -> Vec<&str> {
    events.iter().filter_map(|event| event["content"]["body"].as_str()).collect()
}

fn alice() -> OwnedUserId {
    user_id!("@alice:example.org").to_owned()
}

fn irc_bob() -> OwnedUserId {
    user_id!("@irc_bob:example.org").to_owned()
}

#[tokio::test]
async fn it_is_told_of_rooms_its_users_are_in_from_their_join_on() {
    let mut bridge = Bridge::start().await;
    let server = server_with(bridge.registration(&json!({}))).await;
    let room = room(&server, &alice()).await;
    says(&server, &room, &alice(), "before").await;

    joins(&server, &room, &irc_bob()).await;
    let first = bridge.next().await;
    says(&server, &room, &alice(), "after").await;
    let second = bridge.next_events().await;

    assert_eq!((first.method, &*first.token), (Method::PUT, "Bearer hs-secret"));
    let events = first.body["events"].as_array().unwrap();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["state_key"], "@irc_bob:example.org");
    assert_eq!(events[0]["room_id"], room.room_id.as_str());
    assert!(first.body.get("ephemeral").is_none());
    assert_eq!(bodies(&second), ["after"]);
}

/// Method: one who is told later holds the news up, as a busy machine does, until the transaction has come.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn it_is_told_even_if_its_worker_wakes_before_everybody_has_heard() {
    let mut bridge = Bridge::start().await;
    let server = server_with(bridge.registration(&json!({}))).await;
    let room = room(&server, &irc_bob()).await;
    let mut told = bridge.next_events().await;
    while told.len() < 4 {
        told.extend(bridge.next_events().await);
    }
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    server.context.notify.on_change(move |_| {
        // Ends when the test lets go of its end.
        let _ = held.lock().unwrap().recv();
    });

    let saying = tokio::spawn({
        let (server, room) = (server.clone(), room.clone());
        async move { says(&server, &room, &irc_bob(), "urgent").await }
    });
    let came = tokio::time::timeout(std::time::Duration::from_secs(20), bridge.next_events()).await;
    drop(release);
    saying.await.unwrap();

    assert_eq!(bodies(&came.expect("the transaction comes")), ["urgent"]);
}

#[tokio::test]
async fn it_is_told_only_the_event_types_it_wants() {
    let mut bridge = Bridge::start().await;
    let more = json!({
        "namespaces": { "rooms": [{ "exclusive": false, "regex": "!.*" }] },
        "org.voicechat.event_types": ["m.room.join_rules"],
    });
    let server = server_with(bridge.registration(&more)).await;

    let room = room(&server, &alice()).await;
    says(&server, &room, &alice(), "not for you").await;
    let rules = state("m.room.join_rules", "", &alice(), json!({ "join_rule": "invite" }));
    server.services.timeline.append(room.nid, rules).await.unwrap();

    let mut events = bridge.next_events().await;
    if events.len() < 2 {
        events.extend(bridge.next_events().await);
    }
    let kinds: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["m.room.join_rules", "m.room.join_rules"]);
}

#[tokio::test]
async fn a_refused_transaction_is_repeated_unchanged_and_a_ping_brings_it_at_once() {
    let mut bridge = Bridge::start().await;
    let server = server_with(bridge.registration(&json!({}))).await;
    let room = room(&server, &alice()).await;
    bridge.answer_with(500);
    joins(&server, &room, &irc_bob()).await;
    let refused = bridge.next().await;
    says(&server, &room, &alice(), "later").await;

    bridge.answer_with(200);
    as_appservice(&server).post("/_matrix/client/v1/appservice/irc/ping", json!({})).await.ok();
    let ping = bridge.next().await;
    let repeated = bridge.next().await;
    let next = bridge.next_events().await;

    assert_eq!(ping.path, "/_matrix/app/v1/ping");
    assert_eq!((&repeated.path, &repeated.body), (&refused.path, &refused.body));
    assert_eq!(bodies(&next), ["later"]);
}

/// Method: the first server stops while its transaction is refused; a second one starts on its database.
async fn an_unacknowledged_transaction_outlives_the_server(store: Store) {
    let mut bridge = Bridge::start().await;
    let mut settings = settings();
    settings.appservices.registry.texts = vec![bridge.registration(&json!({}))];
    let before = TestServer::start_on(store.clone(), settings.clone()).await;
    let room = room(&before, &alice()).await;
    bridge.answer_with(500);
    joins(&before, &room, &irc_bob()).await;
    let refused = bridge.next().await;
    before.services.appservices.stop().await;
    says(&before, &room, &alice(), "while away").await;
    drop(before);

    bridge.answer_with(200);
    let after = TestServer::start_on(store, settings).await;
    // Another instance's lease ends by the clock.
    after.clock.advance(std::time::Duration::from_secs(60));
    as_appservice(&after).post("/_matrix/client/v1/appservice/irc/ping", json!({})).await.ok();
    let mut asked = Vec::new();
    while asked.len() < 2 {
        let next = bridge.next().await;
        if next.method == Method::PUT {
            asked.push(next);
        }
    }

    let ids = |asked: &Asked| -> Vec<String> {
        let events = asked.body["events"].as_array().unwrap().iter();
        events.map(|event| event["event_id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!((&asked[0].path, ids(&asked[0])), (&refused.path, ids(&refused)));
    assert_eq!(bodies(asked[1].body["events"].as_array().unwrap()), ["while away"]);
    assert_ne!(asked[1].path, asked[0].path);
}

#[tokio::test]
async fn an_unacknowledged_transaction_outlives_the_server_on_sqlite() {
    let store = Store::connect(&storage::Settings::new("sqlite::memory:")).await.unwrap();
    an_unacknowledged_transaction_outlives_the_server(store).await;
}

#[tokio::test]
async fn an_unacknowledged_transaction_outlives_the_server_on_postgresql() {
    an_unacknowledged_transaction_outlives_the_server(postgres().await).await;
}

async fn postgres() -> Store {
    Store::connect(&storage::Settings::new(fresh_postgres().await)).await.unwrap()
}

/// Method: two servers on one PostgreSQL, events through both; each event id must come once.
#[tokio::test]
async fn of_two_instances_one_tells_it() {
    let mut bridge = Bridge::start().await;
    let mut settings = settings();
    settings.appservices.registry.texts = vec![bridge.registration(&json!({}))];
    let store = postgres().await;
    let one = TestServer::start_on(store.clone(), settings.clone()).await;
    let two = TestServer::start_on(store, settings).await;
    let room = room(&one, &irc_bob()).await;

    for n in 0..10 {
        says(if n % 2 == 0 { &one } else { &two }, &room, &irc_bob(), &n.to_string()).await;
    }
    let mut told = Vec::new();
    while told.last().is_none_or(|last| last != "9") {
        told.extend(bodies(&bridge.next_events().await).into_iter().map(str::to_owned));
    }

    assert_eq!(told, (0..10).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn typing_and_receipts_come_with_their_room() {
    let mut bridge = Bridge::start().await;
    let server = server_with(bridge.registration(&json!({ "receive_ephemeral": true }))).await;
    let [alice] = server.users(["alice"]).await;
    let alice_id = OwnedUserId::try_from(alice.user_id.as_str()).unwrap();
    let room = room(&server, &alice_id).await;
    joins(&server, &room, &irc_bob()).await;
    let event_id = says(&server, &room, &irc_bob(), "hello").await;
    let event_id = EventId::parse(&event_id).unwrap();
    let accounts = &server.services.accounts;
    let user = accounts.authenticate(alice.token.as_deref().unwrap(), &Masquerade::default()).await.unwrap();

    server.services.typing.set(&user, &room.room_id, Some(std::time::Duration::from_secs(20))).await.unwrap();
    let receipts = &server.services.receipts;
    receipts.put(&user, &room.room_id, Kind::Private, &Lane::Room, &event_id).await.unwrap();
    receipts.put(&user, &room.room_id, Kind::Public, &Lane::Room, &event_id).await.unwrap();

    let mut news: Vec<Value> = Vec::new();
    while !["m.typing", "m.receipt"].iter().all(|kind| news.iter().any(|one| one["type"] == *kind)) {
        news.extend(bridge.next().await.body["ephemeral"].as_array().unwrap().clone());
    }
    assert!(news.iter().all(|one| one["room_id"] == room.room_id.as_str() || one["type"] == "m.presence"));
    let typing = news.iter().find(|one| one["type"] == "m.typing").unwrap();
    assert_eq!(typing["content"]["user_ids"], json!(["@alice:example.org"]));
    let receipt = news.iter().find(|one| one["type"] == "m.receipt").unwrap();
    assert!(receipt["content"][event_id.as_str()]["m.read"]["@alice:example.org"]["ts"].is_number());
    assert!(!json!(news).to_string().contains("m.read.private"), "{news:?}");
}

#[tokio::test]
async fn a_ping_says_what_went_wrong() {
    let bridge = Bridge::start().await;
    let server = server_with(bridge.registration(&json!({}))).await;
    let ping = "/_matrix/client/v1/appservice/irc/ping";

    let answered = as_appservice(&server).post(ping, json!({ "transaction_id": "meow" })).await.ok();
    bridge.answer_with(403);
    let refused = as_appservice(&server).post(ping, json!({})).await;
    let [alice] = server.users(["alice"]).await;
    let by_a_user = alice.post(ping, json!({})).await;
    let of_another = as_appservice(&server).post("/_matrix/client/v1/appservice/xmpp/ping", json!({})).await;
    let absent = server_with(registration(Some("http://127.0.0.1:1"), &json!({}))).await;
    let unreachable = as_appservice(&absent).post(ping, json!({})).await;
    let silent = server_with(registration(None, &json!({}))).await;
    let nowhere = as_appservice(&silent).post(ping, json!({})).await;

    assert!(answered["duration_ms"].is_number());
    assert_eq!(refused.refusal(), (502, "M_BAD_STATUS".to_owned()));
    assert_eq!((&refused.json()["status"], &refused.json()["body"]), (&403.into(), &"{}".into()));
    assert_eq!(by_a_user.refusal(), (403, "M_FORBIDDEN".to_owned()));
    assert_eq!(of_another.refusal(), (403, "M_FORBIDDEN".to_owned()));
    assert_eq!(unreachable.refusal(), (502, "M_CONNECTION_FAILED".to_owned()));
    assert_eq!(nowhere.refusal(), (400, "M_URL_NOT_SET".to_owned()));
}

#[tokio::test]
async fn it_acts_as_its_users_and_nobody_else_has_their_names() {
    let server = server_with(registration(None, &json!({}))).await;
    let bot = as_appservice(&server);
    let body = json!({ "type": "m.login.application_service", "username": "irc_carol", "inhibit_login": true });

    let itself = bot.get("/_matrix/client/v3/account/whoami").await.ok();
    bot.post("/_matrix/client/v3/register", body).await.ok();
    let carol = bot.get("/_matrix/client/v3/account/whoami?user_id=@irc_carol:example.org").await.ok();
    let stranger = bot.get("/_matrix/client/v3/account/whoami?user_id=@alice:example.org").await;
    let body = json!({ "username": "irc_dave", "password": "correct horse", "auth": { "type": "m.login.dummy" } });
    let taken = server.anonymous().post("/_matrix/client/v3/register", body).await;

    assert_eq!(itself["user_id"], "@irc_bot:example.org");
    assert_eq!(carol["user_id"], "@irc_carol:example.org");
    assert_eq!(stranger.status(), 403);
    assert_eq!(taken.refusal(), (400, "M_EXCLUSIVE".to_owned()));
}

#[tokio::test]
async fn questions_about_networks_are_passed_on_without_the_askers_token() {
    let user = json!([{ "userid": "@irc_bob:example.org", "protocol": "irc", "fields": { "nick": "bob" } }]);
    let protocol = json!({ "user_fields": ["nick"], "instances": [{ "desc": "Libera" }] });
    let mut bridge = Bridge::answering(HashMap::from([
        ("/_matrix/app/v1/thirdparty/user/irc?nick=bob", user.clone()),
        // This one is asked by its older path, which is all it knows.
        ("/_matrix/app/unstable/thirdparty/protocol/irc", protocol.clone()),
    ]))
    .await;
    let server = server_with(bridge.registration(&json!({ "protocols": ["irc"] }))).await;
    let [alice] = server.users(["alice"]).await;
    let token = alice.token.clone().unwrap();

    let found = alice.get(&format!("/_matrix/client/v3/thirdparty/user/irc?nick=bob&access_token={token}")).await.ok();
    let protocols = alice.get("/_matrix/client/v3/thirdparty/protocols").await.ok();
    let unknown = alice.get("/_matrix/client/v3/thirdparty/protocol/xmpp").await;

    assert_eq!(found, user);
    assert_eq!(protocols, json!({ "irc": protocol }));
    assert_eq!(unknown.refusal(), (404, "M_NOT_FOUND".to_owned()));
    assert!(!bridge.next().await.path.contains(&token));
}

#[tokio::test]
async fn it_is_asked_to_make_users_and_rooms_of_its_namespaces() {
    let bridge =
        Bridge::answering(HashMap::from([("/_matrix/app/v1/users/%40irc_eve%3Aexample.org", json!({}))])).await;
    let server = server_with(bridge.registration(&json!({}))).await;
    let appservices = &server.services.appservices;

    assert!(appservices.query_user(user_id!("@irc_eve:example.org")).await);
    assert!(!appservices.query_user(user_id!("@irc_nobody:example.org")).await);
    assert!(!appservices.query_user(user_id!("@alice:example.org")).await);
}

#[tokio::test]
async fn an_application_service_lists_rooms_for_its_network_apart_from_the_servers_own() {
    let protocol = json!({ "user_fields": [], "instances": [{ "desc": "Libera", "network_id": "libera" }] });
    let bridge = Bridge::answering(HashMap::from([("/_matrix/app/v1/thirdparty/protocol/irc", protocol)])).await;
    let server = server_with(bridge.registration(&json!({ "protocols": ["irc"] }))).await;
    let [alice] = server.users(["alice"]).await;
    let bot = as_appservice(&server);
    let mut rooms = Vec::new();
    for (name, visibility) in [("bridged", "private"), ("ours", "public")] {
        let wish = json!({ "name": name, "visibility": visibility });
        let made = alice.post("/_matrix/client/v3/createRoom", wish).await.ok();
        rooms.push(made["room_id"].as_str().unwrap().to_owned());
    }
    let path = format!("/_matrix/client/v3/directory/list/appservice/libera/{}", rooms[0]);
    let list = async |query: Value| {
        let page = alice.post("/_matrix/client/v3/publicRooms", query).await.ok();
        let chunk = page["chunk"].as_array().unwrap().clone();
        assert_eq!(page["total_room_count_estimate"], json!(chunk.len()));
        let mut names: Vec<String> = chunk.iter().map(|room| room["name"].as_str().unwrap().to_owned()).collect();
        names.sort_unstable();
        names
    };

    assert_eq!(alice.put(&path, json!({ "visibility": "public" })).await.refusal(), (403, "M_FORBIDDEN".to_owned()));
    bot.put(&path, json!({ "visibility": "public" })).await.ok();

    let network = alice.get("/_matrix/client/v3/thirdparty/protocol/irc").await.ok();
    let instance = network["instances"][0]["instance_id"].as_str().unwrap();
    assert_eq!(list(json!({})).await, ["ours"]);
    assert_eq!(list(json!({ "third_party_instance_id": instance })).await, ["bridged"]);
    assert_eq!(list(json!({ "include_all_networks": true })).await, ["bridged", "ours"]);
    assert!(list(json!({ "third_party_instance_id": "*x" })).await.is_empty());
    bot.put(&path, json!({ "visibility": "private" })).await.ok();
    assert!(list(json!({ "third_party_instance_id": instance })).await.is_empty());
}
