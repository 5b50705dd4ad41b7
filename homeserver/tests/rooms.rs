//! Rooms through the router: what may be set, how they are upgraded, what sync tells of them.

mod fixture;
#[path = "rooms/gaps.rs"]
mod gaps;
#[path = "rooms/history.rs"]
mod history;
#[path = "rooms/peeking.rs"]
mod peeking;
#[path = "rooms/reading.rs"]
mod reading;
#[path = "rooms/syncing.rs"]
mod syncing;
#[path = "rooms/upgrading.rs"]
mod upgrading;

use fixture::{Client, TestServer};
use serde_json::{Value, json};

/// Make a room as asked for.
pub async fn room(creator: &Client, wish: Value) -> String {
    let reply = creator.post("/_matrix/client/v3/createRoom", wish).await.ok();
    reply["room_id"].as_str().unwrap().to_owned()
}

/// Do something to a room: `join`, `leave`, `invite`, …
pub async fn act(user: &Client, room_id: &str, action: &str, body: Value) {
    user.post(&format!("/_matrix/client/v3/rooms/{room_id}/{action}"), body).await.ok();
}

/// Say something.
pub async fn say(user: &Client, room_id: &str, words: &str) -> String {
    send(user, room_id, "m.room.message", words, json!({ "msgtype": "m.text", "body": words })).await
}

/// Send an event; returns its id.
pub async fn send(user: &Client, room_id: &str, kind: &str, txn: &str, content: Value) -> String {
    let path = format!("/_matrix/client/v3/rooms/{room_id}/send/{kind}/{txn}");
    user.put(&path, content).await.ok()["event_id"].as_str().unwrap().to_owned()
}

/// Set state with an empty key.
pub async fn set(user: &Client, room_id: &str, kind: &str, content: Value) {
    user.put(&format!("/_matrix/client/v3/rooms/{room_id}/state/{kind}/"), content).await.ok();
}

/// The content of state with an empty key.
pub async fn state(user: &Client, room_id: &str, kind: &str) -> Value {
    user.get(&format!("/_matrix/client/v3/rooms/{room_id}/state/{kind}/")).await.ok()
}

#[tokio::test]
async fn an_event_too_large_is_refused_as_such() {
    let server = TestServer::start().await;
    let [alice] = server.users(["alice"]).await;
    let room_id = room(&alice, json!({})).await;
    let body = json!({ "msgtype": "m.text", "body": "x".repeat(70_000) });

    for path in ["send/m.room.message/1", "state/org.example.large/"] {
        let reply = alice.put(&format!("/_matrix/client/v3/rooms/{room_id}/{path}"), body.clone()).await;
        assert_eq!(reply.refusal(), (413, "M_TOO_LARGE".to_owned()));
    }
}

#[tokio::test]
async fn a_room_is_created_only_once() {
    let server = TestServer::start().await;
    let [alice] = server.users(["alice"]).await;
    for version in ["11", "12"] {
        let room_id = room(&alice, json!({ "room_version": version })).await;
        let path = format!("/_matrix/client/v3/rooms/{room_id}/state/m.room.create/");
        let reply = alice.put(&path, json!({ "room_version": version, "again": true })).await;
        assert_eq!(reply.refusal(), (400, "M_BAD_JSON".to_owned()));
    }
}

#[tokio::test]
async fn who_vouches_for_a_join_is_not_for_the_joining_client_to_say() {
    let server = TestServer::start().await;
    let [alice] = server.users(["alice"]).await;
    let room_id = room(&alice, json!({ "room_version": "11" })).await;
    let path = format!("/_matrix/client/v3/rooms/{room_id}/state/m.room.member/{}", alice.user_id);
    let content = json!({ "membership": "join", "displayname": "A", "join_authorised_via_users_server": "unused" });

    alice.put(&path, content).await.ok();

    let said = alice.get(&path).await.ok();
    assert_eq!((&said["displayname"], said.get("join_authorised_via_users_server")), (&json!("A"), None));
}
