//! Room keys that clients back up.

use serde_json::{Value, json};

use crate::fixture::{Client, TestServer};

const VERSION: &str = "/_matrix/client/v3/room_keys/version";
const KEYS: &str = "/_matrix/client/v3/room_keys/keys";
const ROOM: &str = "!room:example.org";

fn description(word: &str) -> Value {
    json!({ "algorithm": "m.megolm_backup.v1", "auth_data": { "foo": word } })
}

async fn begins(client: &Client) -> String {
    client.post(VERSION, description("bar")).await.ok()["version"].as_str().unwrap().to_owned()
}

fn key(is_verified: bool, first_message_index: u32, forwarded_count: u32) -> Value {
    json!({
        "first_message_index": first_message_index,
        "forwarded_count": forwarded_count,
        "is_verified": is_verified,
        "session_data": { "a": "b" },
    })
}

fn session_path(session: &str, version: &str) -> String {
    format!("{KEYS}/{ROOM}/{session}?version={version}")
}

#[tokio::test]
async fn a_backup_is_described_as_its_maker_did() {
    let server = TestServer::start().await;
    let [alice] = server.users(["alice"]).await;
    assert_eq!(alice.get(VERSION).await.refusal(), (404, "M_NOT_FOUND".into()));

    let version = begins(&alice).await;

    let expected = json!({
        "algorithm": "m.megolm_backup.v1", "auth_data": { "foo": "bar" }, "count": 0, "etag": "0", "version": version,
    });
    assert_eq!(alice.get(VERSION).await.ok(), expected);
    assert_eq!(alice.get(&format!("{VERSION}/{version}")).await.ok(), expected);
}

#[tokio::test]
async fn the_auth_data_of_a_backup_can_change_and_its_algorithm_and_number_cannot() {
    let server = TestServer::start().await;
    let [alice] = server.users(["alice"]).await;
    let path = format!("{VERSION}/{}", begins(&alice).await);

    alice.put(&path, description("new")).await.ok();
    let other_algorithm = json!({ "algorithm": "m.other", "auth_data": {} });
    let mut other_version = description("x");
    other_version["version"] = json!("77");

    assert_eq!(alice.get(&path).await.ok()["auth_data"], json!({ "foo": "new" }));
    assert_eq!(alice.put(&path, other_algorithm).await.refusal(), (400, "M_INVALID_PARAM".into()));
    assert_eq!(alice.put(&path, other_version).await.refusal(), (400, "M_INVALID_PARAM".into()));
    let nowhere = alice.put(&format!("{VERSION}/77"), description("x")).await;
    assert_eq!(nowhere.refusal(), (404, "M_NOT_FOUND".into()));
}

#[tokio::test]
async fn keys_come_back_by_session_by_room_and_all_together() {
    let server = TestServer::start().await;
    let [alice] = server.users(["alice"]).await;
    let v = begins(&alice).await;
    let other_room = "!other:example.org";

    alice.put(&session_path("a", &v), key(true, 1, 0)).await.ok();
    let room = json!({ "sessions": { "b": key(true, 2, 0) } });
    alice.put(&format!("{KEYS}/{ROOM}?version={v}"), room).await.ok();
    let all = json!({ "rooms": { other_room: { "sessions": { "c": key(true, 3, 0) } } } });
    let state = alice.put(&format!("{KEYS}?version={v}"), all).await.ok();

    assert_eq!(state, json!({ "count": 3, "etag": "3" }));
    assert_eq!(alice.get(&session_path("a", &v)).await.ok(), key(true, 1, 0));
    let sessions = json!({ "a": key(true, 1, 0), "b": key(true, 2, 0) });
    assert_eq!(alice.get(&format!("{KEYS}/{ROOM}?version={v}")).await.ok(), json!({ "sessions": sessions }));
    let rooms = json!({ ROOM: { "sessions": sessions }, other_room: { "sessions": { "c": key(true, 3, 0) } } });
    assert_eq!(alice.get(&format!("{KEYS}?version={v}")).await.ok(), json!({ "rooms": rooms }));
}

/// Verified before unverified, then the lower first index, then the lower forwarded count.
#[tokio::test]
async fn a_worse_key_does_not_replace_a_better_one_and_a_better_one_does() {
    let server = TestServer::start().await;
    let [alice] = server.users(["alice"]).await;
    let v = begins(&alice).await;
    let better_and_worse = [
        (key(false, 10, 5), key(false, 11, 5)),
        (key(false, 10, 5), key(false, 10, 6)),
        (key(true, 10, 5), key(false, 1, 1)),
        (key(true, 10, 5), key(true, 11, 1)),
    ];

    for (nth, (better, worse)) in better_and_worse.iter().enumerate() {
        for (name, order) in [("up", [worse, better]), ("down", [better, worse])] {
            let path = session_path(&format!("{name}{nth}"), &v);
            alice.put(&path, order[0].clone()).await.ok();
            alice.put(&path, order[1].clone()).await.ok();
            assert_eq!(alice.get(&path).await.ok(), *better, "case {nth} {name}");
        }
    }
}

#[tokio::test]
async fn the_etag_changes_with_the_keys_and_only_then() {
    let server = TestServer::start().await;
    let [alice] = server.users(["alice"]).await;
    let v = begins(&alice).await;
    let path = session_path("a", &v);

    let first = alice.put(&path, key(false, 5, 0)).await.ok();
    let same = alice.put(&path, key(false, 5, 0)).await.ok();
    let better = alice.put(&path, key(true, 5, 0)).await.ok();

    assert_eq!(first, same);
    assert_ne!(first["etag"], better["etag"]);
    assert_eq!(better["count"], 1);
}

#[tokio::test]
async fn keys_are_written_to_the_current_backup_alone() {
    let server = TestServer::start().await;
    let [alice] = server.users(["alice"]).await;
    let old = begins(&alice).await;
    let current = begins(&alice).await;

    let reply = alice.put(&session_path("a", &old), key(true, 1, 0)).await;
    let nowhere = alice.put(&session_path("a", "77"), key(true, 1, 0)).await;

    assert_eq!(reply.refusal(), (403, "M_WRONG_ROOM_KEYS_VERSION".into()));
    assert_eq!(reply.json()["current_version"], json!(current));
    assert_eq!(nowhere.refusal(), (404, "M_NOT_FOUND".into()));
}

#[tokio::test]
async fn deleted_keys_are_gone_and_counted() {
    let server = TestServer::start().await;
    let [alice] = server.users(["alice"]).await;
    let v = begins(&alice).await;
    for session in ["a", "b", "c"] {
        alice.put(&session_path(session, &v), key(true, 1, 0)).await.ok();
    }

    let one = alice.delete(&session_path("a", &v)).await.ok();
    let again = alice.delete(&session_path("a", &v)).await.ok();
    let room = alice.delete(&format!("{KEYS}/{ROOM}?version={v}")).await.ok();

    assert_eq!((&one["count"], &room["count"]), (&json!(2), &json!(0)));
    assert_eq!(one, again);
    assert_eq!(alice.get(&session_path("b", &v)).await.refusal(), (404, "M_NOT_FOUND".into()));
    assert_eq!(alice.get(&format!("{KEYS}/{ROOM}?version={v}")).await.ok(), json!({ "sessions": {} }));
    assert_eq!(alice.delete(&format!("{KEYS}?version={v}")).await.ok()["count"], 0);
}

#[tokio::test]
async fn a_deleted_backup_stays_deleted_and_its_number_is_not_given_again() {
    let server = TestServer::start().await;
    let [alice] = server.users(["alice"]).await;
    let first = begins(&alice).await;
    let second = begins(&alice).await;
    let path = format!("{VERSION}/{second}");

    alice.delete(&path).await.ok();
    alice.delete(&path).await.ok();

    assert_eq!(alice.get(&path).await.refusal(), (404, "M_NOT_FOUND".into()));
    assert_eq!(alice.get(VERSION).await.ok()["version"], json!(first));
    let third = begins(&alice).await;
    assert!(third != first && third != second);
    assert_eq!(alice.delete(&format!("{VERSION}/77")).await.refusal(), (404, "M_NOT_FOUND".into()));
}

#[tokio::test]
async fn one_users_backup_is_no_other_users() {
    let server = TestServer::start().await;
    let [alice, bob] = server.users(["alice", "bob"]).await;
    let v = begins(&alice).await;
    alice.put(&session_path("a", &v), key(true, 1, 0)).await.ok();

    assert_eq!(bob.get(&session_path("a", &v)).await.refusal(), (404, "M_NOT_FOUND".into()));
}

#[tokio::test]
async fn what_is_no_key_is_refused() {
    let server = TestServer::start().await;
    let [alice] = server.users(["alice"]).await;
    let v = begins(&alice).await;
    let mut negative = key(true, 1, 0);
    negative["first_message_index"] = json!(-1);
    let mut large = key(true, 1, 0);
    large["session_data"]["a"] = json!("x".repeat(70_000));

    assert_eq!(alice.put(&session_path("a", &v), json!({})).await.status(), 400);
    assert_eq!(alice.put(&session_path("a", &v), negative).await.status(), 400);
    assert_eq!(alice.put(&session_path("a", &v), large).await.refusal(), (413, "M_TOO_LARGE".into()));
    assert_eq!(alice.get(VERSION).await.ok()["count"], 0);
}
