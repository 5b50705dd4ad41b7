//! The ways of following rooms before there was sync, and looking into rooms one is not in.

use serde_json::{Value, json};

use crate::{
    act,
    fixture::{Client, TestServer},
    room, say, set,
};

async fn get(user: &Client, path: &str) -> Value {
    user.get(&format!("/_matrix/client/v3/{path}")).await.ok()
}

/// The bodies of messages in a list of events.
fn words(events: &Value) -> Vec<&str> {
    events.as_array().unwrap().iter().filter_map(|event| event["content"]["body"].as_str()).collect()
}

fn kinds(events: &Value) -> Vec<&str> {
    events.as_array().unwrap().iter().filter_map(|event| event["type"].as_str()).collect()
}

/// A room that everybody may read.
async fn glass_house(owner: &Client) -> String {
    let open = json!({ "type": "m.room.history_visibility", "content": { "history_visibility": "world_readable" } });
    room(owner, json!({ "preset": "private_chat", "initial_state": [open] })).await
}

#[tokio::test]
async fn who_may_read_a_room_is_shown_it_as_it_is() {
    let server = TestServer::start().await;
    let [alice, bob] = server.users(["alice", "bob"]).await;
    let room_id = glass_house(&alice).await;
    let tag = format!("user/{}/rooms/{room_id}/tags/m.favourite", alice.user_id);
    alice.put(&format!("/_matrix/client/v3/{tag}"), json!({})).await.ok();
    for message in ["one", "two"] {
        say(&alice, &room_id, message).await;
    }

    let own = get(&alice, &format!("rooms/{room_id}/initialSync")).await;
    let peeked = get(&bob, &format!("rooms/{room_id}/initialSync")).await;

    assert_eq!((&own["membership"], peeked.get("membership")), (&json!("join"), None));
    assert_eq!(own["account_data"][0]["type"], "m.tag");
    for told in [&own, &peeked] {
        assert_eq!((&told["room_id"], &told["visibility"]), (&json!(room_id), &json!("private")));
        assert_eq!(words(&told["messages"]["chunk"]), ["one", "two"], "{told}");
        assert!(kinds(&told["state"]).contains(&"m.room.create"));
    }
    // From its beginning one pages back, from its end one goes on.
    say(&alice, &room_id, "three").await;
    let (start, end) = (peeked["messages"]["start"].as_str().unwrap_or_default(), &peeked["messages"]["end"]);
    let before = get(&bob, &format!("rooms/{room_id}/messages?dir=b&from={start}")).await;
    assert!(start.is_empty() || words(&before["chunk"]).is_empty(), "{before}");
    let after = get(&bob, &format!("events?room_id={room_id}&timeout=0&from={}", end.as_str().unwrap())).await;
    assert_eq!(words(&after["chunk"]), ["three"]);
}

#[tokio::test]
async fn who_may_not_read_a_room_is_shown_nothing_of_it() {
    let server = TestServer::start().await;
    let [alice, bob] = server.users(["alice", "bob"]).await;
    let room_id = room(&alice, json!({ "preset": "public_chat" })).await;
    let event_id = say(&alice, &room_id, "secret").await;

    for path in [format!("rooms/{room_id}/initialSync"), format!("events?room_id={room_id}&timeout=0")] {
        let refused = bob.get(&format!("/_matrix/client/v3/{path}")).await;
        assert_eq!(refused.refusal(), (403, "M_FORBIDDEN".to_owned()), "{path}");
    }
    let refused = bob.get(&format!("/_matrix/client/v3/events/{event_id}")).await;
    assert_eq!(refused.refusal(), (404, "M_NOT_FOUND".to_owned()));
    assert_eq!(get(&alice, &format!("events/{event_id}")).await["room_id"], json!(room_id));
}

#[tokio::test]
async fn a_peeker_hears_what_is_said_until_the_room_is_closed_to_them() {
    let server = TestServer::start().await;
    let [alice, bob] = server.users(["alice", "bob"]).await;
    let room_id = glass_house(&alice).await;
    let elsewhere = room(&alice, json!({})).await;

    let path = format!("events?room_id={room_id}&timeout=60000");
    let (told, _) = tokio::join!(get(&bob, &path), async {
        say(&alice, &elsewhere, "elsewhere").await;
        say(&alice, &room_id, "hello").await
    });
    assert_eq!(words(&told["chunk"]), ["hello"]);
    assert_eq!(told["chunk"][0]["room_id"], json!(room_id));

    set(&alice, &room_id, "m.room.history_visibility", json!({ "history_visibility": "joined" })).await;
    let end = told["end"].as_str().unwrap();
    let refused = bob.get(&format!("/_matrix/client/v3/events?room_id={room_id}&timeout=0&from={end}")).await;
    assert_eq!(refused.status(), 403);
}

#[tokio::test]
async fn the_event_stream_tells_everything_once_and_in_order() {
    let server = TestServer::start().await;
    let [alice, bob] = server.users(["alice", "bob"]).await;
    let mut rooms = Vec::new();
    for number in 0..2 {
        let wish = json!({ "preset": "public_chat", "creation_content": { "org.example.number": number } });
        let room_id = room(&alice, wish).await;
        act(&bob, &room_id, "join", json!({})).await;
        rooms.push(room_id);
    }
    let apart = room(&alice, json!({ "creation_content": { "org.example.number": 2 } })).await;
    let begin = get(&bob, "initialSync?limit=1").await["end"].as_str().unwrap().to_owned();
    let mut said = Vec::new();
    // More than one stretch of the stream.
    for number in 0..150 {
        let message = format!("{number}");
        say(&alice, &rooms[number % 2], &message).await;
        say(&alice, &apart, &message).await;
        said.push(message);
    }

    let (mut heard, mut from) = (Vec::new(), begin.clone());
    while heard.len() < said.len() {
        let told = get(&bob, &format!("events?timeout=0&from={from}")).await;
        assert_eq!(told["start"], json!(from));
        let events = told["chunk"].as_array().unwrap();
        assert!(!events.is_empty(), "{} of {} were told", heard.len(), said.len());
        let messages = events.iter().filter(|event| event["type"] == "m.room.message");
        heard.extend(messages.map(|event| event["content"]["body"].as_str().unwrap().to_owned()));
        from = told["end"].as_str().unwrap().to_owned();
    }
    assert_eq!(heard, said);
    assert_eq!(get(&bob, &format!("events?timeout=0&from={from}")).await["chunk"], json!([]));
    let beyond = format!("s9999999_{}", from.split_once('_').unwrap().1);
    let told = get(&bob, &format!("events?timeout=0&from={beyond}")).await;
    assert_eq!((&told["chunk"], &told["end"]), (&json!([]), &json!(beyond)));
    assert_eq!(bob.get("/_matrix/client/v3/events?from=nonsense").await.refusal(), (400, "M_INVALID_PARAM".to_owned()));
}

#[tokio::test]
async fn the_event_stream_wakes_for_messages_receipts_and_invitations() {
    let server = TestServer::start().await;
    let [alice, bob] = server.users(["alice", "bob"]).await;
    let room_id = room(&alice, json!({ "preset": "public_chat" })).await;
    act(&bob, &room_id, "join", json!({})).await;

    let (told, event_id) = tokio::join!(get(&bob, "events?timeout=60000"), say(&alice, &room_id, "hello"));
    assert_eq!(words(&told["chunk"]), ["hello"]);
    let from = told["end"].as_str().unwrap();
    act(&alice, &room_id, &format!("receipt/m.read/{event_id}"), json!({})).await;
    let told = get(&bob, &format!("events?timeout=60000&from={from}")).await;
    let receipt = told["chunk"].as_array().unwrap().iter().find(|event| event["type"] == "m.receipt").unwrap();
    assert_eq!(receipt["room_id"], json!(room_id));
    let from = told["end"].as_str().unwrap();
    let other = room(&alice, json!({ "invite": [bob.user_id] })).await;
    let told = get(&bob, &format!("events?timeout=60000&from={from}")).await;
    let invited = told["chunk"].as_array().unwrap().iter().find(|event| event["room_id"] == json!(other)).unwrap();
    assert_eq!((&invited["content"]["membership"], &invited["state_key"]), (&json!("invite"), &json!(bob.user_id)));
}

#[tokio::test]
async fn the_older_list_of_rooms_has_those_one_is_in_invited_to_and_on_demand_has_left() {
    let server = TestServer::start().await;
    let [alice, bob] = server.users(["alice", "bob"]).await;
    let numbered = |number: u32, more: Value| {
        let mut wish = json!({ "preset": "public_chat", "creation_content": { "org.example.number": number } });
        wish.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        wish
    };
    let joined = room(&alice, numbered(0, json!({ "visibility": "public" }))).await;
    let left = room(&alice, numbered(1, json!({}))).await;
    let invited = room(&alice, numbered(2, json!({ "invite": [bob.user_id] }))).await;
    for room_id in [&joined, &left] {
        act(&bob, room_id, "join", json!({})).await;
        say(&alice, room_id, "hello").await;
    }
    act(&bob, &left, "leave", json!({})).await;

    let told = get(&bob, "initialSync?limit=1").await;
    let with_left = get(&bob, "initialSync?limit=2&archived=true").await;

    let of = |told: &Value, room_id: &str| {
        told["rooms"].as_array().unwrap().iter().find(|room| room["room_id"] == room_id).cloned().unwrap_or_default()
    };
    assert_eq!(told["rooms"].as_array().unwrap().len(), 2, "{told}");
    let room = of(&told, &joined);
    assert_eq!((&room["membership"], &room["visibility"]), (&json!("join"), &json!("public")));
    assert_eq!(words(&room["messages"]["chunk"]), ["hello"]);
    assert_eq!(room["messages"]["chunk"][0]["room_id"], json!(joined));
    assert_eq!(room["messages"]["end"], told["end"]);
    assert!(kinds(&room["state"]).contains(&"m.room.create"));
    let room = of(&told, &invited);
    assert_eq!((&room["membership"], &room["invite"]["state_key"]), (&json!("invite"), &json!(bob.user_id)));
    let room = of(&with_left, &left);
    assert_eq!((&room["membership"], words(&room["messages"]["chunk"])), (&json!("leave"), vec!["hello"]));
}

/// Clients ask whether there is an OAuth server.
#[tokio::test]
async fn there_is_no_oauth_server() {
    let server = TestServer::start().await;

    let reply = server.anonymous().get("/_matrix/client/v1/auth_metadata").await;

    assert_eq!(reply.refusal(), (404, "M_UNRECOGNIZED".to_owned()));
}
