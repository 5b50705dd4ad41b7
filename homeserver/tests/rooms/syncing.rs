//! What sync tells of rooms one comes into, is outside of, or has left.

use std::sync::Arc;

use room::build::{self, Draft, Place};
use ruma::{OwnedRoomId, OwnedUserId, owned_event_id};
use serde_json::{Value, json, value::to_raw_value};
use services::timeline::{Arrival, Placement};

use crate::{
    act,
    fixture::{Client, TestServer},
    room, say, set,
};

/// With rooms left long ago.
const WITH_LEFT: &str = "filter=%7B%22room%22:%7B%22include_leave%22:true%7D%7D";

pub(super) async fn sync(user: &Client, query: &str) -> Value {
    user.get(&format!("/_matrix/client/v3/sync?{query}")).await.ok()
}

/// The bodies of messages in a part of a sync.
pub(super) fn words(room: &Value) -> Vec<&str> {
    let events = room["timeline"]["events"].as_array().map_or(&[][..], Vec::as_slice);
    events.iter().filter_map(|event| event["content"]["body"].as_str()).collect()
}

fn users(list: &Value) -> Vec<&str> {
    list.as_array().map_or(&[][..], Vec::as_slice).iter().filter_map(Value::as_str).collect()
}

#[tokio::test]
async fn a_room_somebody_left_is_shown_up_to_their_leaving() {
    let server = TestServer::start().await;
    let [alice, bob] = server.users(["alice", "bob"]).await;
    let room_id = room(&alice, json!({ "preset": "public_chat" })).await;
    act(&bob, &room_id, "join", json!({})).await;
    let since = bob.sync_token().await;
    say(&alice, &room_id, "before").await;
    act(&bob, &room_id, "leave", json!({})).await;
    say(&alice, &room_id, "after").await;

    for query in [WITH_LEFT.to_owned(), format!("since={since}")] {
        let told = sync(&bob, &query).await;
        let left = &told["rooms"]["leave"][&room_id];
        assert_eq!(words(left), ["before"], "{query}: {told}");
        let last = left["timeline"]["events"].as_array().unwrap().last().unwrap();
        assert_eq!(last["content"]["membership"], "leave");
    }
    assert_eq!(sync(&bob, "").await["rooms"]["leave"].get(&room_id), None);
}

#[tokio::test]
async fn other_devices_learn_of_leaving_a_room_that_is_forgotten_at_once() {
    let server = TestServer::start().await;
    let [alice] = server.users(["alice"]).await;
    let room_id = room(&alice, json!({})).await;
    let since = alice.sync_token().await;
    act(&alice, &room_id, "leave", json!({})).await;
    assert!(sync(&alice, WITH_LEFT).await["rooms"]["leave"].get(&room_id).is_some());
    act(&alice, &room_id, "forget", json!({})).await;

    let told = sync(&alice, &format!("since={since}")).await;

    assert!(told["rooms"]["leave"].get(&room_id).is_some(), "{told}");
    assert_eq!(sync(&alice, WITH_LEFT).await["rooms"]["leave"].get(&room_id), None);
}

#[tokio::test]
async fn who_joins_does_not_read_what_only_members_were_to_read() {
    let server = TestServer::start().await;
    let [alice, bob] = server.users(["alice", "bob"]).await;
    let room_id = room(&alice, json!({ "preset": "public_chat" })).await;
    set(&alice, &room_id, "m.room.history_visibility", json!({ "history_visibility": "joined" })).await;
    let since = bob.sync_token().await;
    say(&alice, &room_id, "among-us").await;
    act(&bob, &room_id, "join", json!({})).await;
    say(&alice, &room_id, "welcome").await;

    for query in [String::new(), format!("since={since}")] {
        let told = sync(&bob, &query).await;
        assert_eq!(words(&told["rooms"]["join"][&room_id]), ["welcome"], "{query}");
    }
}

#[tokio::test]
async fn ignored_users_are_neither_heard_nor_do_their_invitations_come_through() {
    let server = TestServer::start().await;
    let [alice, bob, carol] = server.users(["alice", "bob", "carol"]).await;
    let shared = room(&alice, json!({ "preset": "public_chat" })).await;
    act(&bob, &shared, "join", json!({})).await;
    let list = format!("/_matrix/client/v3/user/{}/account_data/m.ignored_user_list", alice.user_id);
    alice.put(&list, json!({ "ignored_users": { (&bob.user_id): {} } })).await.ok();
    let since = alice.sync_token().await;
    say(&bob, &shared, "hello").await;
    let ours = room(&carol, json!({ "invite": [alice.user_id] })).await;
    let theirs = room(&bob, json!({ "invite": [alice.user_id] })).await;

    for query in [String::new(), format!("since={since}")] {
        let told = sync(&alice, &query).await;
        assert!(words(&told["rooms"]["join"][&shared]).is_empty(), "{told}");
        assert!(told["rooms"]["invite"].get(&ours).is_some());
        assert_eq!(told["rooms"]["invite"].get(&theirs), None);
    }
}

#[tokio::test]
async fn members_learn_of_newcomers_their_keys_and_their_presence_and_of_their_leaving() {
    let server = TestServer::start().await;
    let [alice, bob] = server.users(["alice", "bob"]).await;
    let presence = format!("/_matrix/client/v3/presence/{}/status", bob.user_id);
    bob.put(&presence, json!({ "presence": "online" })).await.ok();
    let room_id = room(&alice, json!({ "preset": "public_chat" })).await;
    let since = alice.sync_token().await;

    act(&bob, &room_id, "join", json!({})).await;
    let told = sync(&alice, &format!("since={since}")).await;
    assert_eq!(users(&told["device_lists"]["changed"]), [&bob.user_id], "{told}");
    let senders: Vec<&Value> =
        told["presence"]["events"].as_array().unwrap().iter().map(|event| &event["sender"]).collect();
    assert!(senders.contains(&&json!(bob.user_id)), "{told}");

    let since = told["next_batch"].as_str().unwrap();
    act(&bob, &room_id, "leave", json!({})).await;
    let told = sync(&alice, &format!("since={since}")).await;
    assert_eq!(users(&told["device_lists"]["left"]), [&bob.user_id], "{told}");
}

#[tokio::test]
async fn state_that_a_filter_keeps_out_of_the_timeline_is_told_as_state() {
    let server = TestServer::start().await;
    let [alice] = server.users(["alice"]).await;
    let room_id = room(&alice, json!({})).await;
    let since = alice.sync_token().await;
    say(&alice, &room_id, "one").await;
    set(&alice, &room_id, "m.room.topic", json!({ "topic": "new" })).await;
    let filter = "%7B%22room%22:%7B%22timeline%22:%7B%22types%22:[%22m.room.message%22]%7D%7D%7D";

    let told = sync(&alice, &format!("since={since}&filter={filter}")).await;

    let joined = &told["rooms"]["join"][&room_id];
    assert_eq!(words(joined), ["one"]);
    assert_eq!(joined["state"]["events"][0]["content"]["topic"], "new", "{told}");
}

#[tokio::test]
async fn the_first_sync_brings_the_push_rules() {
    let server = TestServer::start().await;
    let [alice] = server.users(["alice"]).await;

    let told = sync(&alice, "").await;

    let data = told["account_data"]["events"].as_array().unwrap();
    let rules = data.iter().find(|event| event["type"] == "m.push_rules").unwrap();
    assert_eq!(rules["content"]["global"]["override"][0]["rule_id"], ".m.rule.master");
}

#[tokio::test]
async fn an_event_says_what_its_reader_was_including_what_it_changes_itself() {
    let server = TestServer::start().await;
    let [alice, bob] = server.users(["alice", "bob"]).await;
    let room_id = room(&alice, json!({ "preset": "public_chat" })).await;
    say(&alice, &room_id, "early").await;
    act(&bob, &room_id, "join", json!({})).await;

    let told = sync(&bob, "").await;

    let events = told["rooms"]["join"][&room_id]["timeline"]["events"].as_array().unwrap();
    let of = |wanted: &dyn Fn(&&Value) -> bool| events.iter().find(wanted).unwrap()["unsigned"]["membership"].clone();
    assert_eq!(of(&|event| event["content"]["body"] == "early"), "leave");
    assert_eq!(of(&|event| event["state_key"] == json!(bob.user_id)), "join");
}

#[tokio::test]
async fn a_knock_taken_back_is_told_as_leaving_alone() {
    let server = TestServer::start().await;
    let [alice, bob] = server.users(["alice", "bob"]).await;
    let rules = json!({ "type": "m.room.join_rules", "content": { "join_rule": "knock" } });
    let room_id = room(&alice, json!({ "initial_state": [rules] })).await;
    bob.post(&format!("/_matrix/client/v3/knock/{room_id}"), json!({})).await.ok();
    let since = bob.sync_token().await;
    act(&bob, &room_id, "leave", json!({})).await;

    let told = sync(&bob, &format!("since={since}")).await;

    let events = told["rooms"]["leave"][&room_id]["timeline"]["events"].as_array().unwrap();
    assert_eq!(events.len(), 1, "{told}");
    assert_eq!(events[0]["content"]["membership"], "leave");
}

/// An event of another server arrives whose predecessors could not be had.
async fn arrives_after_a_gap(server: &TestServer, sender: &Client, room_id: &str, words: &str) {
    let room_id = OwnedRoomId::try_from(room_id).unwrap();
    let now = server.services.timeline.room(&room_id).await.unwrap();
    let content = to_raw_value(&json!({ "msgtype": "m.text", "body": words })).unwrap();
    let draft = Draft::message("m.room.message", OwnedUserId::try_from(sender.user_id.as_str()).unwrap(), content);
    let place = Place {
        room_id: Some(room_id),
        prev_events: vec![owned_event_id!("$nobodyHasIt")],
        auth_events: Vec::new(),
        depth: u64::try_from(now.depth).unwrap() + 50,
        origin_server_ts: server.clock.now(),
    };
    let pdu = Arc::new(build::build(&draft, &place, server.context.signer(), now.rules).unwrap());
    let state_before = Arc::clone(&now.snapshot);
    let arrival = Arrival { pdu, placement: Placement::Live, state_before, relay: false };
    server.services.timeline.accept(now.nid, &arrival).await.unwrap();
}

#[tokio::test]
async fn what_stands_before_a_hole_in_the_history_is_left_to_paging() {
    let server = TestServer::start().await;
    let [alice, bob] = server.users(["alice", "bob"]).await;
    let room_id = room(&alice, json!({ "preset": "public_chat" })).await;
    act(&bob, &room_id, "join", json!({})).await;
    let since = alice.sync_token().await;
    say(&alice, &room_id, "before").await;
    set(&alice, &room_id, "m.room.topic", json!({ "topic": "new" })).await;
    arrives_after_a_gap(&server, &bob, &room_id, "after").await;
    say(&alice, &room_id, "now").await;

    for query in [String::new(), format!("since={since}")] {
        let told = sync(&alice, &query).await;
        let joined = &told["rooms"]["join"][&room_id];
        assert_eq!(words(joined), ["after", "now"], "{query}: {told}");
        assert_eq!(joined["timeline"]["limited"], true);
        let topic = joined["state"]["events"].as_array().unwrap().iter().find(|e| e["type"] == "m.room.topic");
        assert_eq!(topic.unwrap()["content"]["topic"], "new");
    }
}
