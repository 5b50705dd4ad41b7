//! Devices.

use std::time::Duration;

use axum::body::Body;
use http::{Request, header};
use serde_json::json;

use crate::fixture::{Client, PASSWORD, START_MS, TestServer};

const DEVICES: &str = "/_matrix/client/v3/devices";

fn path(client: &Client) -> String {
    format!("{DEVICES}/{}", client.device_id)
}

#[tokio::test]
async fn a_device_has_the_name_it_was_given_and_then_the_one_it_gets() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let body = json!({
        "type": "m.login.password", "user": "alice", "password": PASSWORD,
        "device_id": "login_device", "initial_device_display_name": "device display",
    });
    alice.post("/_matrix/client/v3/login", body).await.ok();
    let path = format!("{DEVICES}/login_device");

    assert_eq!(alice.get(&path).await.ok()["display_name"], "device display");
    alice.put(&path, json!({ "display_name": "new device display" })).await.ok();
    alice.put(&path, json!({})).await.ok();

    let device = alice.get(&path).await.ok();
    assert_eq!(device["device_id"], "login_device");
    assert_eq!(device["display_name"], "new device display");
    assert_eq!(alice.get(DEVICES).await.ok()["devices"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn unknown_devices_and_those_of_others_are_not_there() {
    let server = TestServer::start().await;
    let [alice, bob] = server.users(["alice", "bob"]).await;

    for path in [format!("{DEVICES}/unknown_device"), path(&bob)] {
        assert_eq!(alice.get(&path).await.refusal(), (404, "M_NOT_FOUND".to_owned()));
        assert_eq!(alice.put(&path, json!({ "display_name": "mine" })).await.status(), 404);
        assert_eq!(alice.put(&path, json!({})).await.status(), 404);
        alice.delete_with(&path, json!({ "auth": alice.password_auth() })).await.ok();
    }
    bob.get(&path(&bob)).await.ok();
}

#[tokio::test]
async fn a_name_has_its_bounds() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;

    let reply = alice.put(&path(&alice), json!({ "display_name": "x".repeat(101) })).await;

    assert_eq!(reply.refusal(), (400, "M_INVALID_PARAM".to_owned()));
}

#[tokio::test]
async fn a_deleted_device_takes_its_token_with_it() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let [second, third, fourth] =
        [alice.another_device().await, alice.another_device().await, alice.another_device().await];
    second.get("/_matrix/client/v3/account/whoami").await.ok();

    alice.delete_with(&path(&second), json!({ "auth": alice.password_auth() })).await.ok();
    let both = json!({ "devices": [third.device_id, fourth.device_id], "auth": alice.password_auth() });
    alice.post("/_matrix/client/v3/delete_devices", both).await.ok();

    for gone in [second, third, fourth] {
        assert_eq!(gone.get(DEVICES).await.refusal(), (401, "M_UNKNOWN_TOKEN".to_owned()));
        assert_eq!(alice.get(&path(&gone)).await.status(), 404);
    }
}

#[tokio::test]
async fn when_a_device_was_last_seen_is_known_at_once_and_written_later() {
    let server = TestServer::start().await;
    let mut alice = server.user("alice").await;
    alice.address = "2001:db8::7".parse().unwrap();
    server.clock.advance(Duration::from_secs(90));
    let request = Request::get("/_matrix/client/v3/account/whoami")
        .header(header::AUTHORIZATION, format!("Bearer {}", alice.token.as_ref().unwrap()))
        .header(header::USER_AGENT, "Test/1.0");
    alice.send(request.body(Body::empty()).unwrap()).await.ok();

    let written = || async {
        let nid =
            server.services.accounts.find(alice.user_id.as_str().try_into().unwrap()).await.unwrap().unwrap().user_nid;
        let mut tx = server.store.read().await.unwrap();
        storage::devices::one(&mut tx, nid, &alice.device_id).await.unwrap().unwrap()
    };
    assert_eq!(alice.get(&path(&alice)).await.ok()["last_seen_ts"], START_MS + 90_000);
    assert_eq!(written().await.last_seen_ms, Some(START_MS.cast_signed()));
    server.services.devices.write_seen().await.unwrap();

    assert_eq!(written().await.last_seen_ms, Some((START_MS + 90_000).cast_signed()));
    assert_eq!(written().await.last_seen_ip.as_deref(), Some("2001:db8::7"));
    let before = server.store.statement_count();
    server.services.devices.write_seen().await.unwrap();
    assert_eq!(server.store.statement_count(), before, "nothing new, nothing written");
}
