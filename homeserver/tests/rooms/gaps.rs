//! What a sync leaves out of a timeline, it says so.

use serde_json::json;

use crate::{
    act,
    fixture::TestServer,
    room, say,
    syncing::{sync, words},
};

/// More events than are kept of a room in memory.
const MANY: usize = 80;

#[tokio::test]
async fn a_gap_is_told_though_the_events_after_it_are_of_somebody_who_is_ignored() {
    let server = TestServer::start().await;
    let [alice, bob, carol] = server.users(["alice", "bob", "carol"]).await;
    let room_id = room(&alice, json!({ "preset": "public_chat" })).await;
    act(&bob, &room_id, "join", json!({})).await;
    act(&carol, &room_id, "join", json!({})).await;
    let list = format!("/_matrix/client/v3/user/{}/account_data/m.ignored_user_list", alice.user_id);
    alice.put(&list, json!({ "ignored_users": { (&bob.user_id): {} } })).await.ok();
    let since = alice.sync_token().await;
    say(&carol, &room_id, "first").await;
    for n in 0..MANY {
        say(&bob, &room_id, &format!("noise-{n}")).await;
    }

    let only_noise = sync(&alice, &format!("since={since}")).await;
    say(&carol, &room_id, "last").await;
    let with_noise = sync(&alice, &format!("since={since}")).await;

    let (before, after) = (&only_noise["rooms"]["join"][&room_id], &with_noise["rooms"]["join"][&room_id]);
    assert!(words(before).is_empty() && words(after) == ["last"], "{before} {after}");
    assert_eq!([&before["timeline"]["limited"], &after["timeline"]["limited"]], [true, true]);
    assert!(before["timeline"]["prev_batch"].is_string() && after["timeline"]["prev_batch"].is_string());
}

#[tokio::test]
async fn a_room_that_was_left_is_told_by_the_name_of_state_after_that_the_client_knows() {
    let server = TestServer::start().await;
    let [alice, bob] = server.users(["alice", "bob"]).await;
    let room_id = room(&alice, json!({ "preset": "public_chat" })).await;
    act(&bob, &room_id, "join", json!({})).await;
    let since = bob.sync_token().await;
    act(&bob, &room_id, "leave", json!({})).await;

    for (asked, name) in
        [("use_state_after", "state_after"), ("org.matrix.msc4222.use_state_after", "org.matrix.msc4222.state_after")]
    {
        let told = sync(&bob, &format!("since={since}&{asked}=true")).await;
        let left = told["rooms"]["leave"][&room_id].as_object().unwrap();
        let names: Vec<&String> = left.keys().filter(|name| name.contains("state")).collect();
        assert_eq!(names, [name], "{told}");
    }
}
