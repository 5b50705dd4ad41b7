//! What a server that answers nonsense, too much or nothing can do to one that asks it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::Path,
    response::Redirect,
    routing::{get, put},
};
use futures_util::stream;
use ruma::{
    OwnedServerName, RoomVersionId, ServerName,
    api::federation::discovery::{ServerSigningKeys, VerifyKey, get_server_version},
    serde::Base64,
};
use serde_json::{Value, json};
use services::{
    Error,
    federation::{client::Terms, keys::Needed, signing::SigningKey},
    timeline::events::Stored,
};

use crate::{
    people::plain,
    server::{Authority, Server},
};

const VERSION: &str = "/_matrix/federation/v1/version";
const KEYS: &str = "/_matrix/key/v2/server";

/// Asks for the version, and says why there is none.
async fn problem_with(here: &Server, there: &ServerName, terms: Terms) -> String {
    let request = get_server_version::v1::Request::new();
    match here.services.federation.client().send_open(there, request, terms).await {
        Err(Error::Remote { problem, .. }) => problem,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it has a version"),
    }
}

/// `name`'s answer about its keys: lists `listed`, signed by `signer`.
pub(crate) fn key_answer(here: &Server, name: &str, listed: &SigningKey, signer: &SigningKey) -> Value {
    let name: OwnedServerName = name.try_into().unwrap();
    let until = ruma::MilliSecondsSinceUnixEpoch(ruma::UInt::new_saturating(here.cx.clock.now_ms() + 3_600_000));
    let mut answer = ServerSigningKeys::new(name.clone(), until);
    let public = VerifyKey::new(Base64::parse(listed.public()).unwrap());
    answer.verify_keys.insert(listed.id().as_str().try_into().unwrap(), public);
    let mut object = serde_json::from_value(serde_json::to_value(&answer).unwrap()).unwrap();
    signer.sign(&name, &mut object).unwrap();
    serde_json::to_value(&object).unwrap()
}

#[tokio::test]
async fn an_answer_without_end_is_cut_off() {
    let authority = Authority::new();
    let here = Server::start(&authority).await;
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let endless = move || {
        let counter = Arc::clone(&counter);
        let body = stream::repeat_with(move || {
            counter.fetch_add(1, Ordering::SeqCst);
            Ok::<_, std::convert::Infallible>(Bytes::from_static(&[b' '; 1 << 14]))
        });
        async { Body::from_stream(body) }
    };
    let there = authority.impostor(Router::new().route(VERSION, get(endless)));

    let problem = problem_with(&here, &there, Terms { body_bytes_max: 1 << 20, ..Terms::BRIEF }).await;

    assert!(problem.contains("larger than"), "{problem}");
    assert!(sent.load(Ordering::SeqCst) < 4_000, "it was read on");
    assert!(here.services.federation.client().health().pause_ms(&there) > 0);
}

#[tokio::test]
async fn an_answer_that_never_comes_is_given_up() {
    let authority = Authority::new();
    let here = Server::start(&authority).await;
    let silent = || async { std::future::pending::<Bytes>().await };
    let halting = || async { Body::from_stream(stream::pending::<Result<Bytes, std::convert::Infallible>>()) };
    for app in [Router::new().route(VERSION, get(silent)), Router::new().route(VERSION, get(halting))] {
        let there = authority.impostor(app);

        let problem = problem_with(&here, &there, Terms { timeout: Duration::from_millis(300), ..Terms::BRIEF }).await;

        assert_eq!(problem, "no answer in time");
    }
}

#[tokio::test]
async fn a_server_leads_nowhere_else() {
    let authority = Authority::new();
    let here = Server::start(&authority).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let inside = move || {
        counter.fetch_add(1, Ordering::SeqCst);
        async { Json(json!({ "server": { "name": "secret" } })) }
    };
    let inside = authority.impostor(Router::new().fallback(inside));
    let target = format!("https://{inside}{VERSION}");
    let there =
        authority.impostor(Router::new().route(VERSION, get(move || async move { Redirect::temporary(&target) })));

    let problem = problem_with(&here, &there, Terms::BRIEF).await;

    assert!(problem.contains("307"), "{problem}");
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn nonsense_is_no_answer() {
    let authority = Authority::new();
    let here = Server::start(&authority).await;
    let deep = format!("{{\"server\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    for body in ["", "null", "[]", "{\"server\":7}", "\u{0}", &deep] {
        let body = body.to_owned();
        let there = authority.impostor(Router::new().route(VERSION, get(move || async move { body })));
        let request = get_server_version::v1::Request::new();

        let answer = here.services.federation.client().send_open(&there, request, Terms::BRIEF).await;

        assert!(answer.is_err() || answer.unwrap().server.is_none());
    }
}

/// What a server of this name answers when its keys are asked for, with a good key and another.
type KeyAnswer = fn(&Server, &str, &SigningKey, &SigningKey) -> Value;

#[tokio::test]
async fn keys_are_believed_from_nobody_but_their_server() {
    let authority = Authority::new();
    let here = Server::start(&authority).await;
    let [good, other] = [0, 1].map(|_| SigningKey::generate(&here.cx.randomness).unwrap().2);
    let answers: [KeyAnswer; 4] = [
        |here, name, good, _| key_answer(here, name, good, good),
        |here, name, good, other| key_answer(here, name, good, other),
        |here, _, good, _| key_answer(here, "elsewhere.example.org", good, good),
        |here, name, good, _| {
            let mut answer = key_answer(here, name, good, good);
            answer["valid_until_ts"] = json!(4_000_000_000_000_u64);
            answer
        },
    ];
    let mut had = Vec::new();
    for answer in answers {
        let name = Arc::new(std::sync::OnceLock::<Value>::new());
        let told = Arc::clone(&name);
        let there =
            authority.impostor(Router::new().route(KEYS, get(move || async move { Json(told.get().cloned()) })));
        name.set(answer(&here, there.as_str(), &good, &other)).unwrap();

        let keys = here.services.federation.keys().of(&there, &[good.id()].into(), Needed::Now).await.unwrap();
        had.push(keys.len());
    }

    assert_eq!(had, [1, 0, 0, 0]);
}

/// A server that lets everybody join with this state.
fn resident(authority: &Authority, here: &Server, state: Value) -> OwnedServerName {
    let (_, _, key) = SigningKey::generate(&here.cx.randomness).unwrap();
    let name = Arc::new(std::sync::OnceLock::<Value>::new());
    let told = Arc::clone(&name);
    let template = |Path((room_id, user_id)): Path<(String, String)>| async move {
        Json(json!({ "room_version": "11", "event": {
            "type": "m.room.member", "room_id": room_id, "sender": user_id, "state_key": user_id, "depth": 5,
            "origin_server_ts": 1, "prev_events": [], "auth_events": [], "content": { "membership": "join" },
        } }))
    };
    let app = Router::new()
        .route(KEYS, get(move || async move { Json(told.get().cloned()) }))
        .route("/_matrix/federation/v1/make_join/{room}/{user}", get(template))
        .route("/_matrix/federation/v2/send_join/{room}/{event}", put(move || async move { Json(state) }));
    let there = authority.impostor(app);
    name.set(key_answer(here, there.as_str(), &key, &key)).unwrap();
    there
}

#[tokio::test]
async fn a_join_through_a_server_that_lies_about_the_room_leaves_nothing_behind() {
    let authority = Authority::new();
    let (here, honest) = (Server::start(&authority).await, Server::start(&authority).await);
    let (bob, mallory) = (here.user("bob").await, honest.user("mallory").await);
    let room_id = honest.room(&mallory, RoomVersionId::V11, "public").await;
    let now = honest.services.timeline.room(&room_id).await.unwrap();
    let events = honest.services.timeline.state_events(&now.snapshot).await.unwrap();
    let (create, others): (Vec<_>, Vec<_>) = events.iter().partition(|event| event.pdu.is_create());
    let told = |events: &[&Arc<Stored>]| -> Vec<Value> {
        events.iter().map(|event| serde_json::to_value(event.pdu.to_federation()).unwrap()).collect()
    };
    let (create, others) = (told(&create), told(&others));
    let mut unsigned = [create.clone(), others.clone()].concat();
    unsigned.iter_mut().for_each(|event| event["signatures"] = json!({}));
    // Its keys are known, and nobody but the liar can be asked.
    here.services.federation.keys().of(&honest.name, &Default::default(), Needed::Now).await.unwrap();
    honest.vanish();
    let join = async |state: Value| {
        let there = resident(&authority, &here, state);
        here.services.joining.join(&bob, &room_id, std::slice::from_ref(&there), &plain()).await
    };

    for state in [
        json!({}),
        json!({ "state": [], "auth_chain": [] }),
        json!({ "state": [7, {}, null, "x"], "auth_chain": [[]] }),
        json!({ "state": unsigned, "auth_chain": unsigned }),
        json!({ "state": others, "auth_chain": others }),
        json!({ "state": create, "auth_chain": others }),
    ] {
        assert!(join(state.clone()).await.is_err(), "{state}");
        assert!(here.services.timeline.room(&room_id).await.is_err(), "{state}");
    }
    // The same way with the truth is open.
    let whole = [create, others].concat();
    join(json!({ "state": whole, "auth_chain": [] })).await.unwrap();
}
