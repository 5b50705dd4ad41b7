//! A room of another version in place of an old one.

use serde_json::json;

use crate::{act, fixture::TestServer, room, set, state};

async fn upgraded(user: &crate::fixture::Client, room_id: &str, wish: serde_json::Value) -> String {
    let reply = user.post(&format!("/_matrix/client/v3/rooms/{room_id}/upgrade"), wish).await.ok();
    reply["replacement_room"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_upgraded_room_takes_over_state_names_and_rules() {
    let server = TestServer::start().await;
    let [alice, bob] = server.users(["alice", "bob"]).await;
    let wish = json!({
        "room_version": "10", "preset": "public_chat", "name": "Old", "room_alias_name": "place", "visibility": "public",
        "creation_content": { "type": "m.space" },
        "power_level_content_override": { "users": { (&alice.user_id): 100, (&bob.user_id): 50 } },
    });
    let old = room(&alice, wish).await;
    let rule = format!("/_matrix/client/v3/pushrules/global/room/{old}");
    alice.put(&rule, json!({ "actions": ["dont_notify"] })).await.ok();
    let tag = format!("/_matrix/client/v3/user/{}/rooms/{old}/tags/m.favourite", alice.user_id);
    alice.put(&tag, json!({ "order": 0.5 })).await.ok();

    let new = upgraded(&alice, &old, json!({ "new_version": "12" })).await;

    let create = state(&alice, &new, "m.room.create").await;
    assert_eq!(
        (&create["room_version"], &create["type"], &create["predecessor"]),
        (&json!("12"), &json!("m.space"), &json!({ "room_id": old }))
    );
    assert_eq!(state(&alice, &old, "m.room.tombstone").await["replacement_room"], json!(new));
    assert_eq!(state(&alice, &new, "m.room.name").await["name"], "Old");
    let levels = state(&alice, &new, "m.room.power_levels").await;
    assert_eq!(levels["users"], json!({ (&bob.user_id): 50 }), "creators stand above numbers");
    let closed = state(&alice, &old, "m.room.power_levels").await;
    assert_eq!((&closed["events_default"], &closed["invite"]), (&json!(50), &json!(50)));
    let found = bob.get("/_matrix/client/v3/directory/room/%23place:example.org").await.ok();
    assert_eq!(found["room_id"], json!(new));
    assert_eq!(bob.get("/_matrix/client/v3/publicRooms").await.ok()["chunk"][0]["room_id"], json!(new));
    alice.get(&rule.replace(&old, &new)).await.ok();
    let tags = alice.get(&format!("/_matrix/client/v3/user/{}/rooms/{new}/tags", alice.user_id)).await.ok();
    assert_eq!(tags["tags"]["m.favourite"]["order"], 0.5);
}

#[tokio::test]
async fn creators_get_a_number_again_in_an_older_version() {
    let server = TestServer::start().await;
    let [alice] = server.users(["alice"]).await;
    let old = room(&alice, json!({ "room_version": "12" })).await;

    let new = upgraded(&alice, &old, json!({ "new_version": "11" })).await;

    let levels = state(&alice, &new, "m.room.power_levels").await;
    assert_eq!(levels["users"], json!({ (&alice.user_id): 150 }), "as much as closing the room needs");
    set(&alice, &new, "m.room.topic", json!({ "topic": "hers still" })).await;
}

#[tokio::test]
async fn only_who_may_close_a_room_upgrades_it_and_only_to_a_version_we_make() {
    let server = TestServer::start().await;
    let [alice, bob] = server.users(["alice", "bob"]).await;
    let room_id = room(&alice, json!({ "preset": "public_chat" })).await;
    act(&bob, &room_id, "join", json!({})).await;
    let path = format!("/_matrix/client/v3/rooms/{room_id}/upgrade");

    let refused = bob.post(&path, json!({ "new_version": "11" })).await;
    assert_eq!(refused.refusal(), (403, "M_FORBIDDEN".to_owned()));
    let unknown = alice.post(&path, json!({ "new_version": "org.example.none" })).await;
    assert_eq!(unknown.refusal(), (400, "M_UNSUPPORTED_ROOM_VERSION".to_owned()));
}

#[tokio::test]
async fn what_somebody_said_of_a_room_follows_them_into_a_successor_made_by_hand() {
    let server = TestServer::start().await;
    let [alice, bob] = server.users(["alice", "bob"]).await;
    let old = room(&alice, json!({ "preset": "public_chat" })).await;
    act(&bob, &old, "join", json!({})).await;
    let rule = format!("/_matrix/client/v3/pushrules/global/room/{old}");
    bob.put(&rule, json!({ "actions": ["dont_notify"] })).await.ok();
    let wish = json!({ "preset": "public_chat", "creation_content": { "predecessor": { "room_id": old } } });
    let new = room(&alice, wish).await;

    act(&bob, &new, "join", json!({})).await;

    assert_eq!(bob.get(&rule.replace(&old, &new)).await.status(), 200);
}
