//! How many statements a request costs, through the real router, on each database: the same for 3 rooms and for 60.
//!
//! Counted is what the request's own task runs ([`storage::store::counted`]), so workers that wake meanwhile do not matter. A
//! warm send is counted in `services/tests/timeline.rs`: its statements run in the writer's task.

mod fixture;

use fixture::{Client, TestServer, fresh_postgres, settings};
use serde_json::{Value, json};
use storage::{Settings, Store, store::counted};

/// Most statements of a `/sync` after absence, whatever happened and in however many rooms.
const AFTER_ABSENCE_MAX: u64 = 9;
/// Most statements of a first `/sync` with up to 200 rooms.
const INITIAL_MAX: u64 = 10;

/// A server on a fresh database of each kind; the folder must outlive the test.
async fn servers() -> (tempfile::TempDir, Vec<TestServer>) {
    let folder = tempfile::tempdir().unwrap();
    let file = format!("sqlite://{}", folder.path().join("budgets.db").display());
    let mut servers = Vec::new();
    for url in [file, fresh_postgres().await] {
        let store = Store::connect(&Settings::new(url)).await.unwrap();
        servers.push(TestServer::start_on(store, settings()).await);
    }
    (folder, servers)
}

/// Rooms of Alice that Bob is in.
async fn rooms(alice: &Client, bob: &Client, count: usize) -> Vec<String> {
    let mut rooms = Vec::with_capacity(count);
    for nth in 0..count {
        // The clock stands still, and a room's id is the hash of how it was created.
        let body = json!({ "preset": "public_chat", "creation_content": { "nth": nth, "with": bob.user_id } });
        let room = alice.post("/_matrix/client/v3/createRoom", body).await.ok()["room_id"].as_str().unwrap().to_owned();
        bob.post(&format!("/_matrix/client/v3/join/{room}"), json!({})).await.ok();
        rooms.push(room);
    }
    rooms
}

async fn says(sender: &Client, room: &str, txn: &str) -> String {
    let path = format!("/_matrix/client/v3/rooms/{room}/send/m.room.message/{txn}");
    let reply = sender.put(&path, json!({ "msgtype": "m.text", "body": "hello" })).await.ok();
    reply["event_id"].as_str().unwrap().to_owned()
}

async fn sync(client: &Client, since: &str, timeout_ms: u32) -> (Value, u64) {
    let path = format!("/_matrix/client/v3/sync?since={since}&timeout={timeout_ms}&set_presence=offline");
    let (reply, count) = counted(client.get(&path)).await;
    (reply.ok(), count)
}

fn next_batch(answer: &Value) -> String {
    answer["next_batch"].as_str().unwrap().to_owned()
}

/// The token of somebody who has everything: once to see what there is, once to be remembered.
async fn caught_up(client: &Client) -> String {
    let since = client.sync_token().await;
    next_batch(&sync(client, &since, 0).await.0)
}

#[tokio::test]
async fn a_long_poll_that_nothing_ends_asks_the_database_nothing() {
    let (_folder, servers) = servers().await;
    for server in servers {
        let [alice, bob] = server.users(["alice", "bob"]).await;
        rooms(&alice, &bob, 3).await;
        let since = caught_up(&bob).await;

        let (answer, count) = sync(&bob, &since, 30).await;

        assert!(answer["rooms"].is_null(), "{answer}");
        assert_eq!(count, 0);
    }
}

#[tokio::test]
async fn a_sync_woken_by_a_message_asks_the_database_at_most_once() {
    let (_folder, servers) = servers().await;
    for server in servers {
        let [alice, bob] = server.users(["alice", "bob"]).await;
        let rooms = rooms(&alice, &bob, 3).await;
        says(&alice, &rooms[0], "first").await;
        let since = caught_up(&bob).await;

        let ((answer, count), event_id) = tokio::join!(sync(&bob, &since, 10_000), says(&alice, &rooms[0], "second"));

        let joined = &answer["rooms"]["join"][&rooms[0]];
        assert_eq!(joined["timeline"]["events"][0]["event_id"], event_id.as_str());
        assert_eq!(joined["unread_notifications"]["notification_count"], 2);
        assert!(count <= 1, "{count} statements");

        let since = next_batch(&answer);
        let ((answer, count), _) = tokio::join!(sync(&bob, &since, 10_000), says(&alice, &rooms[0], "third"));
        assert_eq!(answer["rooms"]["join"][&rooms[0]]["unread_notifications"]["notification_count"], 3);
        assert_eq!(count, 0, "what counts the unread is in memory now");
    }
}

/// What is remembered of a reader's unread events must not outlive what changes it.
#[tokio::test]
async fn unread_counts_follow_what_is_read_written_and_mentioned() {
    let (_folder, servers) = servers().await;
    for server in servers {
        let [alice, bob] = server.users(["alice", "bob"]).await;
        let rooms = rooms(&alice, &bob, 1).await;
        let room = &rooms[0];
        let mut since = caught_up(&bob).await;
        let mut counts = async || {
            let (answer, _) = sync(&bob, &since, 0).await;
            since = next_batch(&answer);
            let unread = &answer["rooms"]["join"][room]["unread_notifications"];
            (unread["notification_count"].as_i64().unwrap(), unread["highlight_count"].as_i64().unwrap())
        };

        says(&alice, room, "1").await;
        assert_eq!(counts().await, (1, 0));
        let second = says(&alice, room, "2").await;
        assert_eq!(counts().await, (2, 0));
        let mention = json!({ "msgtype": "m.text", "body": "you", "m.mentions": { "user_ids": [bob.user_id] } });
        alice.put(&format!("/_matrix/client/v3/rooms/{room}/send/m.room.message/3"), mention).await.ok();
        assert_eq!(counts().await, (3, 1));
        bob.post(&format!("/_matrix/client/v3/rooms/{room}/receipt/m.read/{second}"), json!({})).await.ok();
        assert_eq!(counts().await, (1, 1));
        says(&bob, room, "4").await;
        assert_eq!(counts().await, (0, 0));
        says(&alice, room, "5").await;
        assert_eq!(counts().await, (1, 0));
    }
}

/// Everything the design counts for a sync after absence happens in every room, or to Bob himself.
async fn absence(server: &TestServer, room_count: usize) -> u64 {
    let [alice, bob, carol] = server
        .users(
            [format!("alice{room_count}"), format!("bob{room_count}"), format!("carol{room_count}")]
                .each_ref()
                .map(String::as_str),
        )
        .await;
    let rooms = rooms(&alice, &bob, room_count).await;
    let since = caught_up(&bob).await;
    for room in &rooms {
        let event_id = says(&alice, room, &format!("1{room}")).await;
        says(&alice, room, &format!("2{room}")).await;
        let topic = format!("/_matrix/client/v3/rooms/{room}/state/m.room.topic");
        alice.put(&topic, json!({ "topic": "absence" })).await.ok();
        alice.post(&format!("/_matrix/client/v3/rooms/{room}/receipt/m.read/{event_id}"), json!({})).await.ok();
    }
    let data = format!("/_matrix/client/v3/user/{}/account_data/org.example.data", bob.user_id);
    bob.put(&data, json!({ "a": 1 })).await.ok();
    let messages = json!({ "messages": { &bob.user_id: { "*": { "a": 1 } } } });
    alice.put("/_matrix/client/v3/sendToDevice/org.example.message/1", messages).await.ok();
    let key = json!({ "device_keys": {
        "user_id": alice.user_id, "device_id": alice.device_id, "algorithms": [], "keys": {}, "signatures": {},
    } });
    alice.post("/_matrix/client/v3/keys/upload", key).await.ok();
    let invite = json!({ "preset": "private_chat", "invite": [bob.user_id] });
    carol.post("/_matrix/client/v3/createRoom", invite).await.ok();

    let (answer, count) = sync(&bob, &since, 0).await;

    let joined = answer["rooms"]["join"].as_object().unwrap();
    assert_eq!(joined.len(), room_count);
    for room in joined.values() {
        assert_eq!(room["timeline"]["events"].as_array().unwrap().len(), 3, "{room}");
        assert_eq!(room["ephemeral"]["events"][0]["type"], "m.receipt");
        assert_eq!(room["unread_notifications"]["notification_count"], 2);
    }
    assert_eq!(answer["account_data"]["events"].as_array().unwrap().len(), 1);
    assert_eq!(answer["to_device"]["events"].as_array().unwrap().len(), 1);
    assert_eq!(answer["device_lists"]["changed"], json!([alice.user_id]));
    assert_eq!(answer["rooms"]["invite"].as_object().unwrap().len(), 1);
    count
}

#[tokio::test]
async fn a_sync_after_absence_costs_the_same_for_few_rooms_and_for_many() {
    let (_folder, servers) = servers().await;
    for server in servers {
        // The first of all gives numbers to what an invitation shows.
        absence(&server, 1).await;
        let few = absence(&server, 3).await;
        let many = absence(&server, 60).await;

        assert_eq!(few, many);
        assert!(many <= AFTER_ABSENCE_MAX, "{many} statements");
    }
}

#[tokio::test]
async fn a_first_sync_costs_the_same_for_few_rooms_and_for_many() {
    let (_folder, servers) = servers().await;
    for server in servers {
        let [alice, bob, carol] = server.users(["alice", "bob", "carol"]).await;
        let mut counts = Vec::new();
        for (reader, count) in [(&bob, 3), (&carol, 60)] {
            for room in rooms(&alice, reader, count).await {
                says(&alice, &room, &room).await;
            }
            for filter in ["{}", r#"{"room":{"state":{"lazy_load_members":true}}}"#] {
                let path = format!(
                    "/_matrix/client/v3/sync?set_presence=offline&filter={}",
                    filter.replace('{', "%7B").replace('}', "%7D").replace('"', "%22")
                );
                let (reply, statements) = counted(reader.get(&path)).await;
                assert_eq!(reply.ok()["rooms"]["join"].as_object().unwrap().len(), count);
                counts.push(statements);
            }
        }

        assert_eq!(counts[..2], counts[2..]);
        assert!(counts.iter().all(|count| *count <= INITIAL_MAX), "{counts:?} statements");
    }
}

#[tokio::test]
async fn asking_for_keys_of_local_users_costs_two_statements_and_being_recognised_none() {
    let (_folder, servers) = servers().await;
    for server in servers {
        let [alice, bob] = server.users(["alice", "bob"]).await;
        let asked = json!({ "device_keys": { &alice.user_id: [], &bob.user_id: [] } });
        bob.get("/_matrix/client/v3/account/whoami").await.ok();

        let (reply, count) = counted(bob.post("/_matrix/client/v3/keys/query", asked)).await;
        reply.ok();
        assert!(count <= 2, "{count} statements");

        let (reply, count) = counted(bob.get("/_matrix/client/v3/account/whoami")).await;
        reply.ok();
        assert_eq!(count, 0);
    }
}
