//! Ways into a room and out of it, across servers.

use ruma::RoomVersionId;
use serde_json::json;
use services::Error;

use crate::{
    people::plain,
    server::{Authority, Server},
};

#[tokio::test]
async fn a_user_joins_a_room_of_another_server_in_every_version_we_know() {
    let authority = Authority::new();
    let (here, there) = (Server::start(&authority).await, Server::start(&authority).await);
    let (alice, bob) = (here.user("alice").await, there.user("bob").await);

    for version in [RoomVersionId::V6, RoomVersionId::V10, RoomVersionId::V11, RoomVersionId::V12] {
        let room_id = here.room(&alice, version, "public").await;
        here.says(&alice, &room_id, "anybody there?").await;

        let now = there.joins(&bob, &room_id, &here).await.unwrap();

        assert_eq!(now.inhabitants.joined, 2);
        assert_eq!(here.state_of(&room_id).await, there.state_of(&room_id).await);
    }
}

#[tokio::test]
async fn nobody_joins_a_room_that_does_not_let_them_in() {
    let authority = Authority::new();
    let (here, there) = (Server::start(&authority).await, Server::start(&authority).await);
    let (alice, bob) = (here.user("alice").await, there.user("bob").await);
    let room_id = here.room(&alice, RoomVersionId::V11, "invite").await;

    let refused = there.joins(&bob, &room_id, &here).await.unwrap_err();

    let Error::Remote { status, matrix, .. } = refused else { panic!("{refused}") };
    assert_eq!((status, matrix.unwrap().0.as_str()), (Some(403), "M_FORBIDDEN"));
    assert!(there.services.timeline.room(&room_id).await.is_err());
}

#[tokio::test]
async fn an_access_list_keeps_a_server_out() {
    let authority = Authority::new();
    let (here, there) = (Server::start(&authority).await, Server::start(&authority).await);
    let (alice, bob) = (here.user("alice").await, there.user("bob").await);
    let room_id = here.room(&alice, RoomVersionId::V11, "public").await;
    let list = json!({ "allow": ["*"], "deny": ["localhost"] });
    here.sets(&alice, &room_id, "m.room.server_acl", "", list).await;

    assert!(there.joins(&bob, &room_id, &here).await.is_err());
}

#[tokio::test]
async fn an_invited_user_joins_and_a_refused_invitation_is_gone_on_both_sides() {
    let authority = Authority::new();
    let (here, there) = (Server::start(&authority).await, Server::start(&authority).await);
    let (alice, bob, carol) = (here.user("alice").await, there.user("bob").await, there.user("carol").await);
    let room_id = here.room(&alice, RoomVersionId::V12, "invite").await;
    let now = here.services.timeline.room(&room_id).await.unwrap();
    here.services.joining.invite(&now, &alice, &bob, &plain()).await.unwrap();
    let now = here.services.timeline.room(&room_id).await.unwrap();
    here.services.joining.invite(&now, &alice, &carol, &plain()).await.unwrap();
    assert_eq!(there.invitation(&bob, &room_id).await.unwrap().membership, "invite");

    there.services.joining.leave(&carol, &room_id, &plain()).await.unwrap();
    there.joins(&bob, &room_id, &here).await.unwrap();

    assert_eq!(there.invitation(&carol, &room_id).await.unwrap().membership, "leave");
    assert!(there.invitation(&bob, &room_id).await.is_none());
    let now = here.services.timeline.room(&room_id).await.unwrap();
    assert_eq!((now.inhabitants.joined, now.inhabitants.invited), (2, 0));
}

#[tokio::test]
async fn an_invitation_of_a_user_nobody_knows_is_refused() {
    let authority = Authority::new();
    let (here, there) = (Server::start(&authority).await, Server::start(&authority).await);
    let alice = here.user("alice").await;
    let room_id = here.room(&alice, RoomVersionId::V12, "invite").await;
    let now = here.services.timeline.room(&room_id).await.unwrap();
    let nobody = format!("@nobody:{}", there.name).try_into().unwrap();

    let nobody: ruma::OwnedUserId = nobody;
    let refused = here.services.joining.invite(&now, &alice, &nobody, &plain()).await.unwrap_err();

    assert!(matches!(refused, Error::Remote { status: Some(404), .. }), "{refused}");
    assert_eq!(here.services.timeline.room(&room_id).await.unwrap().inhabitants.invited, 0);
}

#[tokio::test]
async fn a_restricted_room_lets_members_of_its_space_in_and_no_others() {
    let authority = Authority::new();
    let (here, there) = (Server::start(&authority).await, Server::start(&authority).await);
    let (alice, bob, carol) = (here.user("alice").await, there.user("bob").await, there.user("carol").await);
    let space = here.room(&alice, RoomVersionId::V12, "public").await;
    let room_id = here.room(&alice, RoomVersionId::V12, "invite").await;
    let rule = json!({ "join_rule": "restricted", "allow": [{ "type": "m.room_membership", "room_id": space }] });
    here.sets(&alice, &room_id, "m.room.join_rules", "", rule).await;
    there.joins(&bob, &space, &here).await.unwrap();

    let now = there.joins(&bob, &room_id, &here).await.unwrap();

    assert_eq!(now.inhabitants.joined, 2);
    assert_eq!(here.state_of(&room_id).await, there.state_of(&room_id).await);
    assert!(there.joins(&carol, &space, &here).await.is_ok());
    let stranger = here.room(&alice, RoomVersionId::V12, "invite").await;
    let rule = json!({ "join_rule": "restricted", "allow": [{ "type": "m.room_membership", "room_id": stranger }] });
    here.sets(&alice, &room_id, "m.room.join_rules", "", rule).await;
    assert!(there.joins(&there.user("dave").await, &room_id, &here).await.is_err());
}

#[tokio::test]
async fn a_server_that_cannot_let_a_user_in_is_passed_over_and_only_those_named_are_asked() {
    let authority = Authority::new();
    let (here, there, third) =
        (Server::start(&authority).await, Server::start(&authority).await, Server::start(&authority).await);
    let (alice, bob, carol) = (here.user("alice").await, there.user("bob").await, third.user("carol").await);
    let space = here.room(&alice, RoomVersionId::V11, "public").await;
    let room_id = here.room(&alice, RoomVersionId::V11, "public").await;
    there.joins(&bob, &space, &here).await.unwrap();
    there.joins(&bob, &room_id, &here).await.unwrap();
    third.joins(&carol, &space, &here).await.unwrap();
    let levels = json!({ "invite": 100, "users": { alice.as_str(): 100 } });
    here.sets(&alice, &room_id, "m.room.power_levels", "", levels).await;
    let rule = json!({ "join_rule": "restricted", "allow": [{ "type": "m.room_membership", "room_id": space }] });
    let rule = here.sets(&alice, &room_id, "m.room.join_rules", "", rule).await.event_id;
    let knows = || async {
        let state = there.state_of(&room_id).await;
        state.iter().any(|entry| entry.2 == rule.as_str())
            && there.services.timeline.room(&space).await.unwrap().inhabitants.joined == 3
    };
    there.until("the room is restricted", knows).await;

    let refused = third.joins(&carol, &room_id, &there).await.unwrap_err();
    let both = [there.name.clone(), here.name.clone()];
    let now = third.services.joining.join(&carol, &room_id, &both, &plain()).await.unwrap();

    let Error::Remote { matrix: Some((code, _)), .. } = refused else { panic!("{refused}") };
    assert_eq!(code, "M_UNABLE_TO_GRANT_JOIN");
    let member = third.services.timeline.state_event(&now, "m.room.member", carol.as_str()).await.unwrap().unwrap();
    let voucher = room::auth::facts::field::<String>(&member.pdu.content, "join_authorised_via_users_server");
    assert_eq!(voucher.as_deref(), Some(alice.as_str()));
}

#[tokio::test]
async fn a_knock_is_heard() {
    let authority = Authority::new();
    let (here, there) = (Server::start(&authority).await, Server::start(&authority).await);
    let (alice, bob) = (here.user("alice").await, there.user("bob").await);
    let room_id = here.room(&alice, RoomVersionId::V11, "knock").await;

    there.services.joining.knock(&bob, &room_id, std::slice::from_ref(&here.name), &plain()).await.unwrap();

    assert_eq!(there.invitation(&bob, &room_id).await.unwrap().membership, "knock");
    let now = here.services.timeline.room(&room_id).await.unwrap();
    let event = here.services.timeline.state_event(&now, "m.room.member", bob.as_str()).await.unwrap().unwrap();
    assert_eq!(room::auth::facts::membership(&event.pdu).as_str(), "knock");
}

#[tokio::test]
async fn a_newcomers_client_is_told_the_whole_state_under_the_name_it_asked_for() {
    let authority = Authority::new();
    let (here, there) = (Server::start(&authority).await, Server::start(&authority).await);
    let (alice, bob) = (here.user("alice").await, there.account("bob").await);
    let room_id = here.room(&alice, RoomVersionId::V12, "public").await;
    here.sets(&alice, &room_id, "m.room.topic", "", json!({ "topic": "tea" })).await;
    let since = there.asked("GET", "v3/sync", Some(&bob), &json!({})).await["next_batch"].clone();
    let since = since.as_str().unwrap();

    there.joins(&bob.id, &room_id, &here).await.unwrap();

    let mut expected: Vec<_> = there.state_of(&room_id).await.into_iter().map(|entry| entry.2).collect();
    expected.sort();
    for (asked, named) in [
        ("", "state"),
        ("&use_state_after=true", "state_after"),
        ("&org.matrix.msc4222.use_state_after=true", "org.matrix.msc4222.state_after"),
    ] {
        let reply = there.asked("GET", &format!("v3/sync?since={since}{asked}"), Some(&bob), &json!({})).await;
        let room = &reply["rooms"]["join"][room_id.as_str()];
        let parts = [&room[named]["events"], &room["timeline"]["events"]];
        let events = parts.iter().flat_map(|part| part.as_array().cloned().unwrap_or_default());
        let mut told: Vec<_> = events.map(|event| event["event_id"].as_str().unwrap().to_owned()).collect();
        told.sort();
        told.dedup();
        assert_eq!(told, expected, "{named}: {room}");
    }
}
