//! Requests of any shape to every endpoint: none panics, none is our fault, and every refusal is a Matrix error.

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::http::Method;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use serde_json::json;
use storage::Store;

use crate::{
    fixture::{Client, Reply, TestServer, fresh_postgres, settings},
    nonsense::{self, Known, Made},
};

/// Of every so many cases that proptest makes (256, or `PROPTEST_CASES`), one goes to each endpoint.
const CASES_SHARE: u32 = 16;
/// Requests after which a new user and room take the place of what is left of the old.
const REQUESTS_PER_SCENE: usize = 8;
/// Panics anywhere in this process, in background tasks too.
static PANICS: AtomicUsize = AtomicUsize::new(0);

/// Somebody with a room, a message and a file, for requests to be about.
struct Scene {
    admin: Client,
    known: Known,
    left: usize,
}

impl Scene {
    async fn new(server: &TestServer, number: usize) -> Self {
        let admin = server.admin(&format!("alice{number}")).await;
        let other = server.user(&format!("bob{number}")).await;
        let room = admin
            .post("/_matrix/client/v3/createRoom", json!({ "preset": "public_chat", "room_version": "11" }))
            .await
            .ok();
        let room_id = room["room_id"].as_str().unwrap().to_owned();
        other.post(&format!("/_matrix/client/v3/join/{room_id}"), json!({})).await.ok();
        let message = json!({ "msgtype": "m.text", "body": "hello" });
        let sent = admin.put(&format!("/_matrix/client/v3/rooms/{room_id}/send/m.room.message/1"), message).await.ok();
        let file = admin.request(Method::POST, "/_matrix/media/v3/upload", Some(b"file".to_vec())).await.ok();
        let media_id = file["content_uri"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
        let known = Known {
            user_id: admin.user_id.clone(),
            other_user_id: other.user_id.clone(),
            room_id,
            event_id: sent["event_id"].as_str().unwrap().to_owned(),
            device_id: admin.device_id.clone(),
            media_id,
            server_name: "example.org".to_owned(),
            witnesses: Vec::new(),
        };
        Self { admin, known, left: REQUESTS_PER_SCENE }
    }
}

/// What is wrong with an answer, if anything.
fn fault(reply: &Reply) -> Option<String> {
    let body = String::from_utf8_lossy(&reply.body);
    let json = serde_json::from_slice::<serde_json::Value>(&reply.body).unwrap_or_default();
    match reply.status() {
        // Other servers do not answer here.
        502 | 504 => None,
        500.. => Some(format!("{} {body}", reply.status())),
        // The first answer of user-interactive authentication is no error.
        401 if json["flows"].is_array() => None,
        400..500 if json["errcode"].as_str().is_none_or(str::is_empty) => {
            Some(format!("no error code: {} {body}", reply.status()))
        }
        _ => None,
    }
}

async fn sweep(store: Store) {
    std::panic::set_hook(Box::new(|info| {
        PANICS.fetch_add(1, Ordering::SeqCst);
        eprintln!("{info}");
    }));
    let mut settings = settings();
    settings.federation.is_enabled = false;
    let server = TestServer::start_on(store, settings).await;
    let cases = Config::default().cases / CASES_SHARE;
    let runtime = tokio::runtime::Handle::current();
    let faults = tokio::task::spawn_blocking(move || {
        let (mut faults, mut scenes) = (Vec::new(), 0);
        for (method, path, _) in homeserver::routes::endpoints().served {
            if path.starts_with("/_matrix/federation") {
                continue;
            }
            let mut scene = None::<Scene>;
            let method: Method = method.parse().unwrap();
            let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
            let recipe = nonsense::recipe(path.matches('{').count(), method != Method::GET);
            let scene = std::cell::RefCell::new(&mut scene);
            let scenes = std::cell::RefCell::new(&mut scenes);
            let outcome = runner.run(&recipe, |recipe| {
                let mut scene = scene.borrow_mut();
                if scene.as_ref().is_none_or(|scene| scene.left == 0) {
                    **scenes.borrow_mut() += 1;
                    **scene = Some(runtime.block_on(Scene::new(&server, **scenes.borrow())));
                }
                let scene = scene.as_mut().unwrap();
                scene.left -= 1;
                let made: Made = recipe.make(path, nonsense::usual_client_body(path), &scene.known);
                let panics = PANICS.load(Ordering::SeqCst);
                let reply = runtime.block_on(scene.admin.request(method.clone(), &made.path, made.body.clone()));
                if let Some(fault) = fault(&reply) {
                    return Err(TestCaseError::fail(format!("{made:?}: {fault}")));
                }
                if PANICS.load(Ordering::SeqCst) > panics {
                    return Err(TestCaseError::fail(format!("{made:?}: a panic in the background")));
                }
                Ok(())
            });
            if let Err(problem) = outcome {
                faults.push(format!("{method} {path}: {problem}"));
            }
        }
        faults
    });
    let faults = faults.await.unwrap();
    assert!(faults.is_empty(), "{} endpoints:\n{}", faults.len(), faults.join("\n"));
}

/// A character PostgreSQL keeps in no text, wherever a client may write any text.
async fn nul(store: Store) {
    let server = TestServer::start_on(store, settings()).await;
    let alice = server.user("alice").await;
    let room = alice.post("/_matrix/client/v3/createRoom", json!({ "name": "a\u{0}b" })).await.ok();
    let room = format!("/_matrix/client/v3/rooms/{}", room["room_id"].as_str().unwrap());
    let me = format!("/_matrix/client/v3/user/{}", alice.user_id);
    let message = json!({ "msgtype": "m.text", "body": "a\u{0}b" });
    let sent = alice.put(&format!("{room}/send/m.room.message/%00"), message.clone()).await.ok();
    let event_id = sent["event_id"].as_str().unwrap();
    let relates_to = json!({ "rel_type": "m.annotation", "event_id": event_id, "key": "\u{0}" });
    let odd = json!({ "rel_type": "\u{0}", "event_id": event_id });

    for (path, body) in [
        (format!("{room}/send/m.reaction/2"), json!({ "m.relates_to": relates_to })),
        (format!("{room}/send/m.room.message/3"), json!({ "body": "", "m.relates_to": odd })),
        (format!("{room}/state/m.room.topic/"), json!({ "topic": "\u{0}" })),
        (
            format!("{room}/state/m.room.member/{}", alice.user_id),
            json!({ "membership": "join", "displayname": "\u{0}" }),
        ),
        (format!("/_matrix/client/v3/devices/{}", alice.device_id), json!({ "display_name": "\u{0}" })),
        (format!("/_matrix/client/v3/profile/{}/displayname", alice.user_id), json!({ "displayname": "\u{0}" })),
        (format!("{me}/account_data/%00"), json!({ "\u{0}": "\u{0}" })),
        (
            "/_matrix/client/v3/sendToDevice/m.x/%00".to_owned(),
            json!({ "messages": { &alice.user_id: { "\u{0}": {} } } }),
        ),
    ] {
        assert_eq!(alice.put(&path, body).await.status(), 200, "{path}");
    }
    for path in
        [format!("{room}/state/m.room.name/%00"), format!("{me}/filter/%00"), format!("{me}/account_data/%00%00")]
    {
        assert_eq!(alice.get(&path).await.refusal().0, 404, "{path}");
    }
    // The event itself is as it was, and found by its words and its transaction.
    let shown = alice.get(&format!("{room}/event/{event_id}")).await.ok();
    assert_eq!(shown["content"]["body"], "a\u{0}b");
    assert_eq!(alice.put(&format!("{room}/send/m.room.message/%00"), message).await.ok()["event_id"], event_id);
    let wanted = json!({ "search_categories": { "room_events": { "search_term": "a\u{0}b" } } });
    alice.post("/_matrix/client/v3/search", wanted).await.ok();
}

#[tokio::test]
async fn the_character_zero_is_a_character_on_sqlite() {
    nul(Store::connect(&storage::Settings::new("sqlite::memory:")).await.unwrap()).await;
}

#[tokio::test]
async fn the_character_zero_is_a_character_on_postgresql() {
    nul(postgres().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_of_a_client_is_our_fault_on_sqlite() {
    sweep(Store::connect(&storage::Settings::new("sqlite::memory:")).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_of_a_client_is_our_fault_on_postgresql() {
    sweep(postgres().await).await;
}

/// It takes fewer texts than SQLite (no U+0000) and is stricter about types.
async fn postgres() -> Store {
    Store::connect(&storage::Settings::new(fresh_postgres().await)).await.unwrap()
}
