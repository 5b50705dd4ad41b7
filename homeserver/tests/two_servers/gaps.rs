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
async fn who_pages_back_from_a_sync_finds_what_was_said_here_while_another_server_was_away() {
    let authority = Authority::new();
    let here = Server::start(&authority).await;
    let alice = here.account("alice").await;
    let room_id = here.room(&alice.id, RoomVersionId::V11, "public").await;
    let peer = Peer::in_room_of(&authority, &here, &room_id).await;
    let since = here.asked("GET", "v3/sync", Some(&alice), &json!({})).await["next_batch"].clone();
    let mut said = Vec::new();
    for words in ["one", "two", "three", "four"] {
        said.push(here.says(&alice.id, &room_id, words).await.event_id.to_string());
    }
    let late = peer.message("late", &[&peer.join], said_depth(&here, &room_id, &said[0]).await);
    peer.sends(&here, &late).await;
    here.until("it came", || async { here.words_in(&room_id).await.contains(&"late".to_owned()) }).await;
    for words in ["five", "six", "seven"] {
        said.push(here.says(&alice.id, &room_id, words).await.event_id.to_string());
    }

    let filter = "%7B%22room%22:%7B%22timeline%22:%7B%22limit%22:4%7D%7D%7D";
    let sync = format!("v3/sync?since={}&filter={filter}", since.as_str().unwrap());
    let sync = here.asked("GET", &sync, Some(&alice), &json!({})).await;
    let timeline = &sync["rooms"]["join"][room_id.as_str()]["timeline"];
    let ids = |events: &serde_json::Value| -> Vec<String> {
        events.as_array().unwrap().iter().map(|event| event["event_id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(&timeline["events"]), [&late.id, &said[4], &said[5], &said[6]].map(String::clone));

    let (mut from, mut paged) = (timeline["prev_batch"].as_str().unwrap().to_owned(), Vec::new());
    for _ in 0..3 {
        let path = format!("v3/rooms/{room_id}/messages?dir=b&limit=2&from={from}");
        let page = here.asked("GET", &path, Some(&alice), &json!({})).await;
        paged.extend(ids(&page["chunk"]));
        from = page["end"].as_str().unwrap().to_owned();
    }
    let expected: Vec<String> = said[..4].iter().rev().cloned().chain([peer.join.clone()]).collect();
    assert_eq!(paged[..5], expected);
    assert!(!paged.contains(&late.id));
}

async fn said_depth(here: &Server, room_id: &OwnedRoomId, id: &str) -> u64 {
    let history = here.history_of(room_id).await;
    history.iter().find(|event| event.pdu.event_id == id).unwrap().pdu.depth
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
