//! Refresh tokens, kept in the database and in Valkey: the same rules for both.

use std::time::Duration;

use serde_json::{Value, json};

use crate::fixture::{Client, PASSWORD, Reply, TestServer, settings};

const WHOAMI: &str = "/_matrix/client/v3/account/whoami";

async fn logged_in(server: &TestServer) -> (Client, Value) {
    server.user("alice").await;
    let body = json!({ "type": "m.login.password", "user": "alice", "password": PASSWORD, "refresh_token": true });
    let session = server.anonymous().post("/_matrix/client/v3/login", body).await.ok();
    (server.anonymous().with_session(&session), session)
}

async fn refresh(server: &TestServer, token: &Value) -> Reply {
    server.anonymous().post("/_matrix/client/v3/refresh", json!({ "refresh_token": token })).await
}

fn with(alice: &Client, given: &Value) -> Client {
    alice.with_token(given["access_token"].as_str().unwrap())
}

async fn servers() -> [TestServer; 2] {
    [TestServer::start().await, TestServer::start_with_valkey(settings()).await]
}

#[tokio::test]
async fn only_a_client_that_can_refresh_gets_a_token_that_expires() {
    let server = TestServer::start().await;
    let (alice, session) = logged_in(&server).await;
    let other = alice.another_device().await;

    assert_eq!(session["expires_in_ms"], 900_000);
    assert!(session["refresh_token"].is_string());
    server.clock.advance(Duration::from_secs(15 * 60));
    let expired = alice.get(WHOAMI).await;

    assert_eq!(expired.refusal(), (401, "M_UNKNOWN_TOKEN".to_owned()));
    assert_eq!(expired.json()["soft_logout"], true);
    other.get(WHOAMI).await.ok();
}

#[tokio::test]
async fn a_refreshed_token_takes_the_place_of_the_old_one_when_it_is_used() {
    for server in servers().await {
        let (alice, session) = logged_in(&server).await;

        let next = refresh(&server, &session["refresh_token"]).await.ok();
        let renewed = with(&alice, &next);

        assert_eq!(next["expires_in_ms"], 900_000);
        alice.get(WHOAMI).await.ok();
        assert_eq!(renewed.get(WHOAMI).await.ok()["device_id"], alice.device_id);
        assert_eq!(alice.get(WHOAMI).await.status(), 401);
        refresh(&server, &next["refresh_token"]).await.ok();
    }
}

#[tokio::test]
async fn a_client_that_lost_the_answer_may_ask_again() {
    for server in servers().await {
        let (alice, session) = logged_in(&server).await;

        let lost = refresh(&server, &session["refresh_token"]).await.ok();
        let next = refresh(&server, &session["refresh_token"]).await.ok();

        with(&alice, &next).get(WHOAMI).await.ok();
        assert_eq!(with(&alice, &lost).get(WHOAMI).await.status(), 401);
        assert_eq!(refresh(&server, &lost["refresh_token"]).await.status(), 401);
    }
}

#[tokio::test]
async fn a_replaced_refresh_token_that_comes_back_ends_the_login() {
    for server in servers().await {
        let (alice, session) = logged_in(&server).await;
        let second = refresh(&server, &session["refresh_token"]).await.ok();
        with(&alice, &second).get(WHOAMI).await.ok();
        let third = refresh(&server, &second["refresh_token"]).await.ok();
        with(&alice, &third).get(WHOAMI).await.ok();

        let stolen = refresh(&server, &session["refresh_token"]).await;

        assert_eq!(stolen.refusal(), (401, "M_UNKNOWN_TOKEN".to_owned()));
        assert_eq!(with(&alice, &third).get(WHOAMI).await.status(), 401);
        assert_eq!(refresh(&server, &third["refresh_token"]).await.status(), 401);
    }
}

#[tokio::test]
async fn refreshing_with_the_new_token_retires_the_old_one_too() {
    for server in servers().await {
        let (_, first) = logged_in(&server).await;
        let second = refresh(&server, &first["refresh_token"]).await.ok();
        let third = refresh(&server, &second["refresh_token"]).await.ok();

        assert_eq!(refresh(&server, &first["refresh_token"]).await.status(), 401);
        assert_eq!(refresh(&server, &third["refresh_token"]).await.status(), 401, "its family ended");
    }
}

#[tokio::test]
async fn logging_out_ends_the_refresh_token_of_that_device_alone() {
    for server in servers().await {
        let (alice, first) = logged_in(&server).await;
        let body = json!({ "type": "m.login.password", "user": "alice", "password": PASSWORD, "refresh_token": true });
        let second = server.anonymous().post("/_matrix/client/v3/login", body).await.ok();

        alice.post("/_matrix/client/v3/logout", json!({})).await.ok();

        assert_eq!(refresh(&server, &first["refresh_token"]).await.status(), 401);
        refresh(&server, &second["refresh_token"]).await.ok();
    }
}

#[tokio::test]
async fn ending_the_account_ends_every_refresh_token() {
    for server in servers().await {
        let (alice, session) = logged_in(&server).await;

        let auth = json!({ "auth": alice.password_auth() });
        alice.post("/_matrix/client/v3/account/deactivate", auth).await.ok();

        assert_eq!(refresh(&server, &session["refresh_token"]).await.status(), 401);
    }
}

#[tokio::test]
async fn a_refresh_token_lasts_a_week_and_nothing_else_is_one() {
    let server = TestServer::start().await;
    let (alice, session) = logged_in(&server).await;

    for token in [json!(""), json!("vcr_"), json!(alice.token), json!("x".repeat(10_000))] {
        let reply = refresh(&server, &token).await;
        assert_eq!(reply.refusal(), (401, "M_UNKNOWN_TOKEN".to_owned()));
        assert_eq!(reply.json()["soft_logout"], false);
    }
    assert_eq!(refresh(&server, &json!(7)).await.refusal(), (400, "M_BAD_JSON".to_owned()));
    server.clock.advance(Duration::from_secs(7 * 24 * 3600));
    assert_eq!(refresh(&server, &session["refresh_token"]).await.status(), 401);
}

#[tokio::test]
async fn of_two_who_refresh_at_once_one_has_the_token_that_stays() {
    for server in servers().await {
        let (alice, session) = logged_in(&server).await;
        let token = &session["refresh_token"];

        let (one, two) = tokio::join!(refresh(&server, token), refresh(&server, token));

        let mut good = 0;
        for given in [one.ok(), two.ok()] {
            good += u16::from(with(&alice, &given).get(WHOAMI).await.status() == 200);
        }
        assert_eq!(good, 1);
    }
}
