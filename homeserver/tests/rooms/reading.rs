//! What has been read: receipts of rooms and of threads, and the counts that follow them.

use serde_json::{Value, json};

use crate::{
    act,
    fixture::{Client, TestServer},
    room, say, send,
};

/// Counts of each thread apart.
const BY_THREAD: &str = "filter=%7B%22room%22:%7B%22timeline%22:%7B%22unread_thread_notifications%22:true%7D%7D%7D";

/// Two who are in a room, in which the first said something.
struct Scene {
    _server: TestServer,
    alice: Client,
    bob: Client,
    room_id: String,
    root: String,
}

impl Scene {
    async fn new() -> Self {
        let server = TestServer::start().await;
        let [alice, bob] = server.users(["alice", "bob"]).await;
        let room_id = room(&alice, json!({ "preset": "public_chat" })).await;
        act(&bob, &room_id, "join", json!({})).await;
        let root = say(&alice, &room_id, "root").await;
        Self { _server: server, alice, bob, room_id, root }
    }
}

/// Something about another event.
fn about(words: &str, rel_type: &str, event_id: &str) -> Value {
    let relation = json!({ "rel_type": rel_type, "event_id": event_id });
    json!({ "msgtype": "m.text", "body": words, "m.relates_to": relation, "m.mentions": {} })
}

async fn reads(user: &Client, room_id: &str, event_id: &str, thread: Option<&str>) -> u16 {
    let body = thread.map_or(json!({}), |thread| json!({ "thread_id": thread }));
    user.post(&format!("/_matrix/client/v3/rooms/{room_id}/receipt/m.read/{event_id}"), body).await.status()
}

/// Notifications of the main timeline, and those of a thread.
async fn unread(user: &Client, room_id: &str, root: &str) -> (i64, i64) {
    let told = user.get(&format!("/_matrix/client/v3/sync?{BY_THREAD}")).await.ok();
    let told = &told["rooms"]["join"][room_id];
    let count = |counts: &Value| counts["notification_count"].as_i64().unwrap_or(0);
    (count(&told["unread_notifications"]), count(&told["unread_thread_notifications"][root]))
}

#[tokio::test]
async fn a_thread_may_be_read_up_to_an_event_that_speaks_about_its_root() {
    let Scene { _server, alice, bob, room_id, root } = Scene::new().await;
    send(&alice, &room_id, "m.room.message", "1", about("in the thread", "m.thread", &root)).await;
    let beside = send(&alice, &room_id, "m.room.message", "2", about("beside it", "m.reference", &root)).await;
    let reaction = json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": beside, "key": "+1" } });
    let reaction = send(&alice, &room_id, "m.reaction", "3", reaction).await;
    let elsewhere = say(&alice, &room_id, "elsewhere").await;

    assert_eq!(unread(&bob, &room_id, &root).await, (3, 1));
    assert_eq!(reads(&bob, &room_id, &elsewhere, Some(&root)).await, 400);
    assert_eq!(reads(&bob, &room_id, &reaction, Some(&root)).await, 200);
    assert_eq!(unread(&bob, &room_id, &root).await, (3, 0), "the main timeline is as unread as before");
}

#[tokio::test]
async fn a_reaction_to_an_event_of_a_thread_is_in_the_thread_and_none_of_its_replies() {
    let Scene { _server, alice, bob, room_id, root } = Scene::new().await;
    let reply = send(&alice, &room_id, "m.room.message", "1", about("a reply", "m.thread", &root)).await;
    // Of a type that no default rule silences.
    let told = send(&alice, &room_id, "m.room.message", "2", about("about the reply", "m.reference", &reply)).await;
    send(&alice, &room_id, "m.room.message", "3", about("about that", "m.reference", &told)).await;

    assert_eq!(unread(&bob, &room_id, &root).await, (1, 3));
    let threads = bob.get(&format!("/_matrix/client/v1/rooms/{room_id}/threads")).await.ok();
    let bundle = &threads["chunk"][0]["unsigned"]["m.relations"]["m.thread"];
    assert_eq!((&bundle["count"], &bundle["latest_event"]["event_id"]), (&json!(1), &json!(reply)));

    // Who writes has read, here in the thread alone.
    let reaction = json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": reply, "key": "+1" } });
    send(&bob, &room_id, "m.reaction", "4", reaction).await;
    assert_eq!(unread(&bob, &room_id, &root).await, (1, 0));
}

/// Both are told, for they mean different things (MSC4102).
#[tokio::test]
async fn an_event_may_be_read_both_with_its_thread_and_with_the_room() {
    let Scene { _server, alice, bob, room_id, root } = Scene::new().await;
    let reply = send(&alice, &room_id, "m.room.message", "1", about("a reply", "m.thread", &root)).await;

    assert_eq!(reads(&alice, &room_id, &reply, None).await, 200);
    assert_eq!(reads(&alice, &room_id, &reply, Some(&root)).await, 200);

    for user in [&alice, &bob] {
        let told = user.get("/_matrix/client/v3/sync").await.ok();
        let events = told["rooms"]["join"][&room_id]["ephemeral"]["events"].as_array().unwrap();
        let receipts = events.iter().filter(|event| event["type"] == "m.receipt");
        let threads: Vec<_> = receipts
            .map(|event| event["content"][&reply]["m.read"][&alice.user_id].get("thread_id").cloned())
            .collect();
        assert_eq!(threads, [None, Some(json!(root))], "{told}");
    }
}

#[tokio::test]
async fn a_message_redacted_before_it_was_read_is_not_unread_any_more() {
    let Scene { _server, alice, bob, room_id, root } = Scene::new().await;
    let mention = json!({ "msgtype": "m.text", "body": "you", "m.mentions": { "user_ids": [bob.user_id] } });
    let mention = send(&alice, &room_id, "m.room.message", "1", mention).await;
    let reply = send(&alice, &room_id, "m.room.message", "2", about("a reply", "m.thread", &root)).await;
    let mut since = bob.sync_token().await;

    let mut counts = Vec::new();
    for (number, event_id) in [&mention, &reply, &root].into_iter().enumerate() {
        alice.put(&format!("/_matrix/client/v3/rooms/{room_id}/redact/{event_id}/{number}"), json!({})).await.ok();
        let told = bob.get(&format!("/_matrix/client/v3/sync?since={since}&{BY_THREAD}")).await.ok();
        since = told["next_batch"].as_str().unwrap().to_owned();
        let told = &told["rooms"]["join"][&room_id];
        let thread = told["unread_thread_notifications"][&root]["notification_count"].as_i64();
        counts.push((told["unread_notifications"].clone(), thread));
    }

    let listed = bob.get("/_matrix/client/v3/notifications").await.ok();
    assert_eq!(listed["notifications"], json!([]));
    let main =
        |notifications, highlights| json!({ "notification_count": notifications, "highlight_count": highlights });
    assert_eq!(counts, [(main(1, 0), Some(1)), (main(1, 0), None), (main(0, 0), None)]);
}
