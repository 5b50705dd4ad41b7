//! Access tokens: what recognising one costs, and that ending one is felt at once.

#![allow(clippy::disallowed_methods, reason = "tests take the address of a Valkey from the environment")]

use std::time::Duration;

use serde_json::json;
use services::{
    clock::Randomness,
    notify::{Whisper, valkey::Valkey},
};
use storage::Store;

use crate::fixture::{TestServer, settings};

const WHOAMI: &str = "/_matrix/client/v3/account/whoami";

#[tokio::test]
async fn recognising_a_token_costs_one_statement_cold_and_none_warm() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let count = || server.store.statement_count();

    let before = count();
    alice.get(WHOAMI).await.ok();
    let cold = count() - before;
    alice.get(WHOAMI).await.ok();
    let warm = count() - before - cold;
    server.clock.advance(Duration::from_secs(61));
    alice.get(WHOAMI).await.ok();

    assert_eq!((cold, warm, count() - before - cold), (1, 0, 1));
}

#[tokio::test]
async fn tokens_that_are_none_are_unknown_and_made_up_ones_cost_nothing() {
    let server = TestServer::start().await;
    let nobody = server.anonymous();
    // {"alg":"none"}.{"iss":"example.org","sub":"@alice:example.org",…}
    let forged = "eyJhbGciOiJub25lIn0.eyJpc3MiOiJleGFtcGxlLm9yZyIsInN1YiI6IkBhbGljZTpleGFtcGxlLm9yZyIsImRpZCI6IkEiLCJpYXQiOjAsImV4cCI6OTk5OTk5OTk5OSwianRpIjoiYSJ9.";
    let long = "x".repeat(50_000);

    let before = server.store.statement_count();
    for token in ["x", forged, long.as_str(), "..", "vcr_refresh"] {
        let reply = nobody.with_token(token).get(WHOAMI).await;
        assert_eq!(reply.refusal(), (401, "M_UNKNOWN_TOKEN".to_owned()), "{token}");
        assert_eq!(reply.json()["soft_logout"], false);
    }
    assert_eq!(server.store.statement_count(), before);
    assert_eq!(nobody.with_token("vc_unknown").get(WHOAMI).await.errcode(), "M_UNKNOWN_TOKEN");
    assert_eq!(nobody.get(WHOAMI).await.refusal(), (401, "M_MISSING_TOKEN".to_owned()));
}

#[tokio::test]
async fn a_token_in_the_query_is_as_good_as_one_in_the_header() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let path = format!("{WHOAMI}?access_token={}", alice.token.as_ref().unwrap());

    assert_eq!(server.anonymous().get(&path).await.ok()["user_id"], alice.user_id);
}

#[tokio::test]
async fn a_token_from_before_a_restart_is_still_good() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("server.db").display());
    let store = Store::connect(&storage::Settings::new(url)).await.unwrap();
    let before = TestServer::start_on(store.clone(), settings()).await;
    let alice = before.user("alice").await;
    let body = json!({ "type": "m.login.password", "user": "alice", "password": crate::fixture::PASSWORD, "refresh_token": true });
    let signed = alice.with_session(&alice.post("/_matrix/client/v3/login", body).await.ok());

    let after = TestServer::start_on(store, settings()).await;

    for token in [alice.token, signed.token] {
        after.anonymous().with_token(&token.unwrap()).get(WHOAMI).await.ok();
    }
}

#[tokio::test]
async fn an_openid_token_tells_a_third_party_who_somebody_is() {
    let server = TestServer::start().await;
    let [alice, bob] = server.users(["alice", "bob"]).await;
    let path = format!("/_matrix/client/v3/user/{}/openid/request_token", alice.user_id);
    let info = |token: &str| format!("/_matrix/federation/v1/openid/userinfo?access_token={token}");

    let token = alice.post(&path, json!({})).await.ok();

    assert_eq!(token["token_type"], "Bearer");
    assert_eq!(token["matrix_server_name"], "example.org");
    assert_eq!(token["expires_in"], 3600);
    let secret = token["access_token"].as_str().unwrap();
    for _ in 0..2 {
        assert_eq!(server.anonymous().get(&info(secret)).await.ok(), json!({ "sub": alice.user_id }));
    }
    assert_eq!(bob.post(&path, json!({})).await.refusal(), (403, "M_FORBIDDEN".to_owned()));
    assert_eq!(alice.with_token(secret).get(WHOAMI).await.status(), 401, "it is no access token");
    assert_eq!(server.anonymous().get(&info("other")).await.refusal(), (401, "M_UNKNOWN_TOKEN".to_owned()));
    server.clock.advance(Duration::from_secs(3600));
    assert_eq!(server.anonymous().get(&info(secret)).await.status(), 401);
}

/// Method: two servers on one database, their news through Valkey; the second has the token in its memory when the first
/// ends it. Awaits the news, not the time.
#[tokio::test]
async fn a_token_that_ends_on_one_instance_ends_on_all() {
    let url = std::env::var("TEST_VALKEY_URL").expect("TEST_VALKEY_URL names a Valkey or Redis to test on");
    let here = TestServer::start().await;
    let there = TestServer::start_on(here.store.clone(), settings()).await;
    let randomness = Randomness::system();
    let channel = format!("{}.example.org", randomness.letters(12));
    for server in [&here, &there] {
        let bus = Valkey::connect(&url, &channel, &randomness, &server.context.notify).await.unwrap();
        server.context.notify.connect(Box::new(bus));
    }
    let (heard, mut hears) = tokio::sync::mpsc::unbounded_channel();
    there.context.notify.on_whisper(move |whisper| {
        if matches!(whisper, Whisper::Revoked(_)) {
            let _ = heard.send(());
        }
    });
    let alice = here.user("alice").await;
    let alice_there = there.anonymous().with_token(alice.token.as_ref().unwrap());
    alice_there.get(WHOAMI).await.ok();

    alice.post("/_matrix/client/v3/logout", json!({})).await.ok();
    hears.recv().await.unwrap();

    assert_eq!(alice_there.get(WHOAMI).await.refusal(), (401, "M_UNKNOWN_TOKEN".to_owned()));
}
