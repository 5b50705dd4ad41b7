//! Every tenth message between the instances is lost: waiting syncs still get everything, once and in order, because what is
//! missing is found by its position.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::{
    fixture::{Client, TestServer, settings},
    pair::{Lossy, Place, catch_up, in_time},
};

/// Every so manieth message between instances is lost.
const LOST_EVERY: u64 = 10;
/// Rounds of writing, each on every instance.
const ROUNDS: usize = 25;
/// What the last message says.
const END: &str = "the end";

/// What one device was shown.
#[derive(Default)]
struct Seen {
    messages: Vec<String>,
    account_data: BTreeMap<String, u64>,
    to_device: Vec<String>,
    rooms: BTreeSet<String>,
    /// The last event each reader is known to have read.
    read: BTreeMap<String, String>,
}

impl Seen {
    fn take(&mut self, room_id: &str, answer: &Value) {
        for event in events(&answer["account_data"]) {
            if let Some(n) = event["content"]["n"].as_u64() {
                self.account_data.insert(event["type"].as_str().unwrap().to_owned(), n);
            }
        }
        let to_device = events(&answer["to_device"]);
        self.to_device.extend(to_device.iter().map(|event| event["content"]["n"].to_string()));
        for (id, room) in answer["rooms"]["join"].as_object().into_iter().flatten() {
            self.rooms.insert(id.clone());
            if id != room_id {
                continue;
            }
            assert_eq!(room["timeline"]["limited"], false, "a sync left something out");
            let messages = events(&room["timeline"]);
            let messages = messages.iter().filter(|event| event["type"] == "m.room.message");
            self.messages.extend(messages.map(|event| event["content"]["body"].as_str().unwrap().to_owned()));
            for event in events(&room["ephemeral"]) {
                for (event_id, kinds) in event["content"].as_object().into_iter().flatten() {
                    let readers = kinds["m.read"].as_object().into_iter().flatten();
                    self.read.extend(readers.map(|(user, _)| (user.clone(), event_id.clone())));
                }
            }
        }
    }
}

fn events(list: &Value) -> Vec<Value> {
    list["events"].as_array().cloned().unwrap_or_default()
}

/// Sync from token to token, always waiting, until the last message is there.
async fn follow(device: Client, mut since: String, room_id: String) -> Seen {
    let mut seen = Seen::default();
    let filter = "%7B%22room%22%3A%7B%22timeline%22%3A%7B%22limit%22%3A1000%7D%7D%7D";
    while seen.messages.last().is_none_or(|last| last != END) {
        let path = format!("/_matrix/client/v3/sync?timeout=90000&filter={filter}&since={since}");
        let answer = device.get(&path).await.ok();
        seen.take(&room_id, &answer);
        since = answer["next_batch"].as_str().unwrap().to_owned();
    }
    seen
}

/// One round of writing by a device: a message, a receipt for it, account data, a message to devices; now and then a room.
async fn write(device: &Client, room_id: &str, others: &[String], n: usize) -> (String, String) {
    let body = format!("{} {n}", device.device_id);
    let path = format!("/_matrix/client/v3/rooms/{room_id}/send/m.room.message/{n}");
    let sent = device.put(&path, json!({ "msgtype": "m.text", "body": body })).await.ok();
    let event_id = sent["event_id"].as_str().unwrap().to_owned();
    device.post(&format!("/_matrix/client/v3/rooms/{room_id}/receipt/m.read/{event_id}"), json!({})).await.ok();
    let path = format!("/_matrix/client/v3/user/{}/account_data/org.example.{}", device.user_id, device.device_id);
    device.put(&path, json!({ "n": n })).await.ok();
    let messages: BTreeMap<&String, Value> =
        others.iter().map(|user| (user, json!({ "*": { "n": format!("{} {n}", device.device_id) } }))).collect();
    let path = format!("/_matrix/client/v3/sendToDevice/org.example.note/{n}");
    device.put(&path, json!({ "messages": messages })).await.ok();
    if n.is_multiple_of(10) {
        // The clock stands: what tells the rooms of one user apart is their content.
        let content = json!({ "org.example.name": body });
        device.post("/_matrix/client/v3/createRoom", json!({ "creation_content": content })).await.ok();
    }
    (body, event_id)
}

/// The devices of one user, one at each instance.
async fn at_each(instances: &[TestServer; 2], name: &str) -> [Client; 2] {
    let here = instances[0].user(name).await;
    let session = json!({ "user_id": here.user_id, "device_id": here.device_id, "access_token": here.token });
    let there = instances[1].anonymous().with_session(&session).another_device().await;
    [here, there]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn waiting_syncs_get_everything_though_every_tenth_message_between_instances_is_lost() {
    let place = Place::fresh().await;
    let lossy = |bus| Lossy::boxed(bus, LOST_EVERY);
    let one = place.instance_with(&place.valkey_url, settings(), lossy).await;
    let two = place.instance_with(&place.valkey_url, settings(), lossy).await;
    let instances = [one, two];
    let alice = at_each(&instances, "alice").await;
    let bob = at_each(&instances, "bob").await;
    let room = alice[0].post("/_matrix/client/v3/createRoom", json!({ "preset": "public_chat" })).await.ok();
    let room_id = room["room_id"].as_str().unwrap().to_owned();
    bob[1].post(&format!("/_matrix/client/v3/join/{room_id}"), json!({})).await.ok();
    let users = [alice[0].user_id.clone(), bob[0].user_id.clone()];
    let devices: Vec<Client> = alice.iter().chain(&bob).cloned().collect();

    for instance in &instances {
        catch_up(instance).await;
    }
    let mut following = Vec::new();
    for device in &devices {
        following.push(tokio::spawn(follow(device.clone(), device.sync_token().await, room_id.clone())));
    }
    let mut writing = tokio::task::JoinSet::new();
    for device in devices.clone() {
        let (room_id, users) = (room_id.clone(), users.to_vec());
        writing.spawn(async move {
            let mut sent = Vec::new();
            for n in 1..=ROUNDS {
                sent.push(write(&device, &room_id, &users, n).await);
            }
            (device, sent)
        });
    }
    let written = in_time("the writing", writing.join_all()).await;
    let path = format!("/_matrix/client/v3/rooms/{room_id}/send/m.room.message/end");
    bob[0].put(&path, json!({ "msgtype": "m.text", "body": END })).await.ok();

    let mut order: Option<Vec<String>> = None;
    for (device, seen) in devices.iter().zip(following) {
        let seen = in_time("seeing the last message", seen).await.unwrap();
        let mut messages: Vec<&String> = seen.messages.iter().collect();
        assert_eq!(order.get_or_insert(seen.messages.clone()), &seen.messages, "two devices saw two orders");
        messages.sort_unstable();
        let last = END.to_owned();
        let mut sent: Vec<&String> = written.iter().flat_map(|(_, sent)| sent).map(|(body, _)| body).collect();
        sent.push(&last);
        sent.sort_unstable();
        assert_eq!(messages, sent, "messages were lost or doubled");
        // A device of the writer's own is told of its account data; every device has the messages to devices, in order.
        for (writer, _) in written.iter().filter(|(writer, _)| writer.user_id == device.user_id) {
            let kind = format!("org.example.{}", writer.device_id);
            assert_eq!(seen.account_data.get(&kind), Some(&(ROUNDS as u64)), "{kind}");
        }
        for (writer, _) in &written {
            let from_writer = |text: &&String| text.contains(&writer.device_id);
            let notes: Vec<String> = seen.to_device.iter().filter(from_writer).cloned().collect();
            let wanted: Vec<String> = (1..=ROUNDS).map(|n| format!("\"{} {n}\"", writer.device_id)).collect();
            assert_eq!(notes, wanted, "messages to devices were lost, doubled or came in another order");
        }
        // The shared room, and those the user's two devices made.
        assert_eq!(seen.rooms.len(), 1 + 2 * (ROUNDS / 10), "{:?}", seen.rooms);
        for user in &users {
            let sent: Vec<&String> = written
                .iter()
                .filter(|(writer, _)| writer.user_id == *user)
                .map(|(_, sent)| &sent.last().unwrap().1)
                .collect();
            let read = seen.read.get(user).unwrap_or_else(|| panic!("nobody saw what {user} has read"));
            assert!(sent.contains(&read), "{user} has read {sent:?}, the last told is {read}");
        }
    }
}
