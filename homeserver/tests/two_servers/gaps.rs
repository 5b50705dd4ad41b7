//! Events before which something is missing.

use ruma::{OwnedRoomId, OwnedUserId, RoomVersionId};
use serde_json::json;

use crate::{
    peer::{Made, Peer, Wish},
    server::{Authority, Server},
};

/// Alice's room here, in which everybody may set state, with Eve of another server in it.
async fn scene(version: RoomVersionId) -> (Server, OwnedUserId, OwnedRoomId, Peer) {
    let authority = Authority::new();
    let here = Server::start(&authority).await;
    let alice = here.user("alice").await;
    let room_id = here.room(&alice, version.clone(), "public").await;
    let mut levels = json!({ "state_default": 0 });
    if version != RoomVersionId::V12 {
        levels["users"] = json!({ alice.as_str(): 100 });
    }
    here.sets(&alice, &room_id, "m.room.power_levels", "", levels).await;
    let peer = Peer::in_room_of(&authority, &here, &room_id).await;
    (here, alice, room_id, peer)
}

/// The state of a room here as the peer would tell it, with one event in another's place.
async fn state_with(here: &Server, room_id: &OwnedRoomId, old: &str, new: &str) -> Vec<String> {
    let ids = here.state_of(room_id).await.into_iter().map(|entry| entry.2);
    ids.map(|id| if id == old { new.to_owned() } else { id }).collect()
}

#[tokio::test]
async fn an_event_before_which_its_sender_keeps_something_back_waits_until_that_is_told() {
    let (here, _, room_id, peer) = scene(RoomVersionId::V11).await;
    let first = peer.message("first", &[&peer.join], 10);
    let second = peer.message("second", &[&first.id], 11);
    let third = peer.message("third", &[&second.id], 12);

    peer.sends(&here, &second).await;
    peer.until(|answers| answers.gaps_asked == 1).await;
    let aside = peer.message("aside", &[&peer.join], 10);
    peer.sends(&here, &aside).await;
    here.until("the event that lacks nothing came", || async { here.words_in(&room_id).await == ["aside"] }).await;
    assert_eq!(peer.answers.lock().unwrap().states_asked, Vec::<String>::new());

    peer.answers.lock().unwrap().missing = vec![first, second];
    peer.sends(&here, &third).await;

    let expected = ["aside", "first", "second", "third"];
    let all = || async {
        let mut words = here.words_in(&room_id).await;
        words.sort();
        words == expected
    };
    here.until("everything came", all).await;
}

#[tokio::test]
async fn the_state_before_a_gap_is_what_the_missing_event_leaves_behind() {
    for version in [RoomVersionId::V11, RoomVersionId::V12] {
        let (here, _, room_id, peer) = scene(version).await;
        let renamed = peer.member(&json!({ "membership": "join", "displayname": "Eve" }), &[&peer.join], 10);
        let again = Made::clone(&renamed);
        let topic = peer.make(&Wish {
            kind: "m.room.topic",
            state_key: Some(""),
            content: json!({ "topic": "gaps" }),
            prev: &[&renamed.id],
            depth: 11,
        });
        let within = peer.message("within", &[&topic.id], 12);
        let last = peer.message("last", &[&within.id], 13);
        {
            let mut state = state_with(&here, &room_id, &peer.join, &renamed.id).await;
            state.sort();
            let mut answers = peer.answers.lock().unwrap();
            answers.missing = vec![within];
            answers.states.insert(topic.id.clone(), state);
            answers.events.insert(topic.id.clone(), topic.clone());
            answers.events.insert(again.id.clone(), again);
        }

        peer.sends(&here, &last).await;

        let heard = || async { here.words_in(&room_id).await == ["within", "last"] };
        here.until("the gap was filled", heard).await;
        assert_eq!(peer.answers.lock().unwrap().gaps_asked, 1, "it had told all");
        assert_eq!(peer.answers.lock().unwrap().states_asked, std::slice::from_ref(&topic.id));
        let state = here.state_of(&room_id).await;
        let ids: Vec<&str> = state.iter().map(|entry| entry.2.as_str()).collect();
        assert!(ids.contains(&topic.id.as_str()) && ids.contains(&renamed.id.as_str()), "{state:?}");
    }
}

#[tokio::test]
async fn a_state_in_which_something_cannot_be_had_is_used_without_it_and_without_what_rests_on_it() {
    let (here, _, room_id, peer) = scene(RoomVersionId::V10).await;
    let name = |name: &str| json!({ "membership": "join", "displayname": name });
    let mut names: Vec<Made> = Vec::new();
    let mut eve = peer;
    let join = eve.join.clone();
    for letter in ["A", "B", "C"] {
        let made = eve.member(&name(letter), &[&eve.join], 10);
        eve.join.clone_from(&made.id);
        names.push(made);
    }
    let missing = eve.message("missing", &[&eve.join], 13);
    let within = eve.message("within", &[&missing.id], 14);
    let last = eve.message("last", &[&within.id], 15);
    {
        let state = state_with(&here, &room_id, &join, &eve.join).await;
        let mut answers = eve.answers.lock().unwrap();
        answers.missing = vec![within];
        answers.states.insert(missing.id.clone(), state);
        // Not the second of the names.
        for made in [&missing, &names[0], &names[2]] {
            answers.events.insert(made.id.clone(), Made::clone(made));
        }
    }

    eve.sends(&here, &last).await;
    eve.until(|answers| !answers.states_asked.is_empty()).await;
    eve.join.clone_from(&join);
    let honest = eve.message("honest", &[&join], 10);
    eve.sends(&here, &honest).await;

    here.until("the honest message came", || async { here.words_in(&room_id).await == ["honest"] }).await;
    assert_eq!(eve.answers.lock().unwrap().states_asked, [missing.id]);
    assert!(here.state_of(&room_id).await.iter().any(|entry| entry.2 == join));
}

#[tokio::test]
async fn of_a_gap_all_is_used_but_what_no_room_may_hold() {
    let (here, _, room_id, peer) = scene(RoomVersionId::V10).await;
    let long_key = "💥".repeat(70);
    let long = peer.make(&Wish {
        kind: "org.example.long",
        state_key: Some(&long_key),
        content: json!({}),
        prev: &[&peer.join],
        depth: 10,
    });
    let mut large = peer.message("large", &[&peer.join], 10);
    let body = large.json.get().replace("large", &"x".repeat(70_000));
    large.json = serde_json::value::RawValue::from_string(body).unwrap();
    let last = peer.message("last", &[&long.id], 11);
    peer.answers.lock().unwrap().missing = vec![large, long.clone()];

    peer.sends(&here, &last).await;

    here.until("the last came", || async { here.words_in(&room_id).await == ["last"] }).await;
    assert!(here.state_of(&room_id).await.iter().any(|entry| entry.2 == long.id));
}
