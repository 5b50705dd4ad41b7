//! Pages of a room's history, and who was in it at a point of it.

use serde_json::{Value, json};

use crate::{act, fixture::TestServer, room, say, send};

fn members(answer: &Value) -> Vec<&str> {
    answer["chunk"].as_array().unwrap().iter().map(|event| event["state_key"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_page_that_a_filter_found_something_for_has_an_end_and_the_page_behind_it_has_none() {
    let server = TestServer::start().await;
    let [alice] = server.users(["alice"]).await;
    let room_id = room(&alice, json!({})).await;
    say(&alice, &room_id, "words").await;
    let file = json!({ "msgtype": "m.file", "body": "a.png", "url": "mxc://example.org/abc" });
    send(&alice, &room_id, "m.room.message", "file", file).await;
    let path = format!("/_matrix/client/v3/rooms/{room_id}/messages?dir=b&filter=%7B%22contains_url%22%3Atrue%7D");

    let page = alice.get(&path).await.ok();
    let end = page["end"].as_str().unwrap();
    let behind = alice.get(&format!("{path}&from={end}")).await.ok();

    assert_eq!(page["chunk"].as_array().unwrap().len(), 1, "{page}");
    assert_eq!((&behind["chunk"], behind.get("end")), (&json!([]), None));
}

#[tokio::test]
async fn a_page_with_the_beginning_of_the_room_has_no_end() {
    let server = TestServer::start().await;
    let [alice] = server.users(["alice"]).await;
    let room_id = room(&alice, json!({})).await;

    let page = alice.get(&format!("/_matrix/client/v3/rooms/{room_id}/messages?dir=b&limit=100")).await.ok();

    assert_eq!(page["chunk"].as_array().unwrap().last().unwrap()["type"], "m.room.create");
    assert_eq!(page.get("end"), None, "{page}");
}

#[tokio::test]
async fn members_at_a_point_are_those_who_were_in_the_room_then() {
    let server = TestServer::start().await;
    let [alice, bob, carol] = server.users(["alice", "bob", "carol"]).await;
    let room_id = room(&alice, json!({ "preset": "public_chat" })).await;
    let at_the_beginning = alice.get("/_matrix/client/v3/sync").await.ok();
    act(&bob, &room_id, "join", json!({})).await;
    let with_bob = alice.sync_token().await;
    act(&carol, &room_id, "join", json!({})).await;
    let filter = "%7B%22room%22:%7B%22timeline%22:%7B%22limit%22:1%7D%7D%7D";
    let before_carol = alice.get(&format!("/_matrix/client/v3/sync?filter={filter}")).await.ok();

    let prev_batch =
        |sync: &Value| sync["rooms"]["join"][&room_id]["timeline"]["prev_batch"].as_str().unwrap().to_owned();
    let points = [
        (prev_batch(&at_the_beginning), vec![&alice.user_id]),
        (with_bob, vec![&alice.user_id, &bob.user_id]),
        (prev_batch(&before_carol), vec![&alice.user_id, &bob.user_id]),
    ];
    for (at, expected) in points {
        let answer = alice.get(&format!("/_matrix/client/v3/rooms/{room_id}/members?at={at}")).await.ok();
        assert_eq!(members(&answer), expected, "at {at}");
    }
}
