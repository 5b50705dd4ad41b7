//! Coming back into a room whose state has moved on meanwhile.

use ruma::RoomVersionId;
use serde_json::json;

use crate::{
    people::plain,
    server::{Authority, Server},
};

/// The join comes upon heads of the room that it does not follow, so the states are resolved with an event in them that is only
/// just arriving.
#[tokio::test]
async fn a_user_who_left_comes_back_although_the_room_has_forked_meanwhile() {
    let authority = Authority::new();
    let (here, there) = (Server::start(&authority).await, Server::start(&authority).await);
    let (alice, bob) = (here.user("alice").await, there.user("bob").await);
    for version in [RoomVersionId::V11, RoomVersionId::V12] {
        let room_id = here.room(&alice, version, "public").await;
        there.joins(&bob, &room_id, &here).await.unwrap();
        there.sets(&bob, &room_id, "m.room.member", bob.as_str(), json!({ "membership": "leave" })).await;
        let is_gone = || async { here.services.timeline.room(&room_id).await.unwrap().inhabitants.joined == 1 };
        here.until("the user has left", is_gone).await;
        here.sets(&alice, &room_id, "m.room.name", "", json!({ "name": "meanwhile" })).await;

        let now = there.joins(&bob, &room_id, &here).await.unwrap();

        assert_eq!(now.inhabitants.joined, 2);
        assert_eq!(here.state_of(&room_id).await, there.state_of(&room_id).await);
    }
}

#[tokio::test]
async fn a_leave_that_no_server_takes_ends_the_invitation_for_the_users_clients() {
    let authority = Authority::new();
    let (here, there) = (Server::start(&authority).await, Server::start(&authority).await);
    let (alice, bob) = (here.user("alice").await, there.account("bob").await);
    let room_id = here.room(&alice, RoomVersionId::V12, "invite").await;
    let now = here.services.timeline.room(&room_id).await.unwrap();
    here.services.joining.invite(&now, &alice, &bob.id, &plain()).await.unwrap();
    here.sets(&alice, &room_id, "m.room.member", alice.as_str(), json!({ "membership": "leave" })).await;

    there.asked("POST", &format!("v3/rooms/{room_id}/leave"), Some(&bob), &json!({})).await;

    let filter = "%7B%22room%22:%7B%22include_leave%22:true%7D%7D";
    let sync = there.asked("GET", &format!("v3/sync?filter={filter}"), Some(&bob), &json!({})).await;
    let last = &sync["rooms"]["leave"][room_id.as_str()]["timeline"]["events"][0];
    assert_eq!((&last["content"]["membership"], &last["state_key"]), (&json!("leave"), &json!(bob.id)), "{sync}");
}
