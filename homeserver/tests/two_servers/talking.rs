//! What is said in one place is heard in the other, in order, also after an absence.

use ruma::RoomVersionId;
use serde_json::json;

use crate::server::{Authority, Server};

#[tokio::test]
async fn messages_go_both_ways() {
    let authority = Authority::new();
    let (here, there) = (Server::start(&authority).await, Server::start(&authority).await);
    let (alice, bob) = (here.user("alice").await, there.user("bob").await);
    let room_id = here.room(&alice, RoomVersionId::V12, "public").await;
    there.joins(&bob, &room_id, &here).await.unwrap();

    for n in 0..10 {
        here.says(&alice, &room_id, &format!("ping {n}")).await;
        there.until("the ping came", || async { there.words_in(&room_id).await.contains(&format!("ping {n}")) }).await;
        there.says(&bob, &room_id, &format!("pong {n}")).await;
        here.until("the pong came", || async { here.words_in(&room_id).await.contains(&format!("pong {n}")) }).await;
    }

    let expected: Vec<String> = (0..10).flat_map(|n| [format!("ping {n}"), format!("pong {n}")]).collect();
    assert_eq!(here.words_in(&room_id).await, expected);
    assert_eq!(there.words_in(&room_id).await, expected);
    assert_eq!(here.state_of(&room_id).await, there.state_of(&room_id).await);
}

#[tokio::test]
async fn a_newcomer_pages_back_to_the_beginning() {
    let authority = Authority::new();
    let (here, there) = (Server::start(&authority).await, Server::start(&authority).await);
    let (alice, bob) = (here.user("alice").await, there.user("bob").await);
    let room_id = here.room(&alice, RoomVersionId::V11, "public").await;
    for n in 0..120 {
        here.says(&alice, &room_id, &format!("{n}")).await;
    }
    let now = there.joins(&bob, &room_id, &here).await.unwrap();
    assert_eq!(there.words_in(&room_id).await.len(), 0);

    while there.services.incoming.backfill(now.nid, i64::MAX, 50).await.unwrap() > 0 {}

    let ids = |history: Vec<std::sync::Arc<services::timeline::events::Stored>>| {
        history.iter().map(|event| event.pdu.event_id.clone()).collect::<Vec<_>>()
    };
    assert_eq!(there.words_in(&room_id).await, (0..120).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(ids(there.history_of(&room_id).await), ids(here.history_of(&room_id).await));
}

#[tokio::test]
async fn a_server_that_was_away_catches_up() {
    let authority = Authority::new();
    let (here, there) = (Server::start(&authority).await, Server::start(&authority).await);
    let (alice, bob) = (here.user("alice").await, there.user("bob").await);
    let mut rooms = Vec::new();
    for _ in 0..3 {
        let room_id = here.room(&alice, RoomVersionId::V12, "public").await;
        there.joins(&bob, &room_id, &here).await.unwrap();
        rooms.push(room_id);
    }
    there.vanish();
    for n in 0..20 {
        for room_id in &rooms {
            here.says(&alice, room_id, &format!("{n}")).await;
        }
    }
    here.finds_away(&there).await;
    here.sets(&alice, &rooms[0], "m.room.topic", "", json!({ "topic": "meanwhile" })).await;

    there.return_again();

    for room_id in &rooms {
        there.until("all was said", || async { there.words_in(room_id).await.len() == 20 }).await;
        let expected: Vec<String> = (0..20).map(|n| n.to_string()).collect();
        assert_eq!(there.words_in(room_id).await, expected);
    }
    let agrees = || async { there.state_of(&rooms[0]).await == here.state_of(&rooms[0]).await };
    there.until("the states agree", agrees).await;
}

#[tokio::test]
async fn a_long_absence_leaves_no_gap() {
    let authority = Authority::new();
    let (here, there) = (Server::start(&authority).await, Server::start(&authority).await);
    let (alice, bob) = (here.user("alice").await, there.user("bob").await);
    let room_id = here.room(&alice, RoomVersionId::V12, "public").await;
    there.joins(&bob, &room_id, &here).await.unwrap();
    there.vanish();
    here.finds_away(&there).await;
    let expected: Vec<String> = (0..180).map(|n| n.to_string()).collect();
    for words in &expected {
        here.says(&alice, &room_id, words).await;
    }

    there.return_again();

    there.until("the last was said", || async { there.words_in(&room_id).await.last() == expected.last() }).await;
    assert_eq!(there.words_in(&room_id).await, expected);
}

#[tokio::test]
async fn what_was_said_before_a_restart_is_delivered_after_it() {
    let authority = Authority::new();
    let (here, there) = (Server::start(&authority).await, Server::start(&authority).await);
    let (alice, bob) = (here.user("alice").await, there.user("bob").await);
    let room_id = here.room(&alice, RoomVersionId::V12, "public").await;
    there.joins(&bob, &room_id, &here).await.unwrap();
    there.vanish();
    here.says(&alice, &room_id, "remember me").await;
    let here = here.restarted(&authority).await;

    there.return_again();

    let heard = || async { there.words_in(&room_id).await == ["remember me"] };
    there.until("it was said", heard).await;
    here.says(&alice, &room_id, "and me").await;
    there.until("more was said", || async { there.words_in(&room_id).await.len() == 2 }).await;
}

#[tokio::test]
async fn servers_that_talk_past_each_other_agree_on_the_state_afterwards() {
    let authority = Authority::new();
    let (here, there) = (Server::start(&authority).await, Server::start(&authority).await);
    let (alice, bob) = (here.user("alice").await, there.user("bob").await);
    for version in [RoomVersionId::V11, RoomVersionId::V12] {
        let room_id = here.room(&alice, version.clone(), "public").await;
        there.joins(&bob, &room_id, &here).await.unwrap();
        let mut users = json!({ bob.as_str(): 100 });
        if version == RoomVersionId::V11 {
            users[alice.as_str()] = 100.into();
        }
        here.sets(&alice, &room_id, "m.room.power_levels", "", json!({ "users": users })).await;
        let agrees = || async { there.state_of(&room_id).await == here.state_of(&room_id).await };
        there.until("bob has power", agrees).await;

        here.vanish();
        there.vanish();
        let mut done = Vec::new();
        for n in 0..3 {
            let (ours, theirs) = (json!({ "topic": format!("here {n}") }), json!({ "topic": format!("there {n}") }));
            done.push(here.sets(&alice, &room_id, "m.room.topic", "", ours).await.event_id);
            done.push(there.sets(&bob, &room_id, "m.room.topic", "", theirs).await.event_id);
            done.push(here.sets(&alice, &room_id, "org.example.here", "", json!({ "n": n })).await.event_id);
            done.push(there.sets(&bob, &room_id, "org.example.there", "", json!({ "n": n })).await.event_id);
        }
        here.return_again();
        there.return_again();
        here.says(&alice, &room_id, "are you back?").await;
        there.says(&bob, &room_id, "are you?").await;

        there.until("all was heard", || async { there.words_in(&room_id).await.len() == 2 }).await;
        here.until("all was heard", || async { here.words_in(&room_id).await.len() == 2 }).await;
        there.until("the states agree", agrees).await;
        // Nobody is left without what the other did meanwhile.
        for server in [&here, &there] {
            let history = server.history_of(&room_id).await;
            let is_there = |id: &ruma::OwnedEventId| history.iter().any(|event| event.pdu.event_id == *id);
            let lacking: Vec<_> = done.iter().filter(|id| !is_there(id)).collect();
            assert!(lacking.is_empty(), "{} lacks {lacking:?}", server.name);
        }
        let kinds: Vec<_> = here.state_of(&room_id).await.into_iter().map(|entry| entry.0).collect();
        assert!(kinds.contains(&"org.example.here".to_owned()) && kinds.contains(&"org.example.there".to_owned()));
    }
}

#[tokio::test]
async fn somebody_put_out_of_a_room_learns_of_it() {
    let authority = Authority::new();
    let (here, there) = (Server::start(&authority).await, Server::start(&authority).await);
    let (alice, bob) = (here.user("alice").await, there.user("bob").await);
    let room_id = here.room(&alice, RoomVersionId::V12, "public").await;
    there.joins(&bob, &room_id, &here).await.unwrap();

    here.sets(&alice, &room_id, "m.room.member", bob.as_str(), json!({ "membership": "ban" })).await;
    here.says(&alice, &room_id, "now we are alone").await;

    let gone = || async {
        let now = there.services.timeline.room(&room_id).await.unwrap();
        now.inhabitants.local.is_empty()
    };
    there.until("bob is out", gone).await;
    assert_eq!(there.words_in(&room_id).await, Vec::<String>::new());
    assert!(there.joins(&bob, &room_id, &here).await.is_err());
}

/// Whoever listens to the news here fails once, in the midst of the first taking back.
#[tokio::test]
async fn a_panic_while_a_rooms_events_are_judged_does_not_end_the_judging() {
    let authority = Authority::new();
    let (here, there) = (Server::start(&authority).await, Server::start(&authority).await);
    let (alice, bob) = (here.user("alice").await, there.user("bob").await);
    let room_id = here.room(&alice, RoomVersionId::V12, "invite").await;
    let own_room = there.room(&bob, RoomVersionId::V12, "invite").await;
    let bob_nid = there.cx.numbers.user(&bob).await.unwrap();
    let is_armed = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let armed = std::sync::Arc::clone(&is_armed);
    there.cx.notify.on_change(move |change| {
        let panics = change.members.contains(&bob_nid) && armed.swap(false, std::sync::atomic::Ordering::SeqCst);
        assert!(!panics, "a fault of a listener");
    });

    for faults in [1, 0] {
        let now = here.services.timeline.room(&room_id).await.unwrap();
        here.services.joining.invite(&now, &alice, &bob, &crate::people::plain()).await.unwrap();
        is_armed.store(faults > 0, std::sync::atomic::Ordering::SeqCst);
        here.sets(&alice, &room_id, "m.room.member", bob.as_str(), json!({ "membership": "leave" })).await;
        let waited = tokio::time::timeout(std::time::Duration::from_secs(30), async {
            while there.invitation(&bob, &room_id).await.unwrap().membership != "leave" {
                // What the listeners missed is told again with the next news.
                there.says(&bob, &own_room, "anything new?").await;
            }
        });
        assert!(waited.await.is_ok(), "the invitation stands");
        assert!(!is_armed.load(std::sync::atomic::Ordering::SeqCst), "nothing went wrong");
    }
}

#[tokio::test]
async fn an_invitation_taken_back_is_gone() {
    let authority = Authority::new();
    let (here, there) = (Server::start(&authority).await, Server::start(&authority).await);
    let (alice, bob) = (here.user("alice").await, there.user("bob").await);
    let room_id = here.room(&alice, RoomVersionId::V12, "invite").await;
    let now = here.services.timeline.room(&room_id).await.unwrap();
    here.services.joining.invite(&now, &alice, &bob, &crate::people::plain()).await.unwrap();

    here.sets(&alice, &room_id, "m.room.member", bob.as_str(), json!({ "membership": "leave" })).await;

    let gone = || async { there.invitation(&bob, &room_id).await.unwrap().membership == "leave" };
    there.until("the invitation is gone", gone).await;
    let now = here.services.timeline.room(&room_id).await.unwrap();
    here.services.joining.invite(&now, &alice, &bob, &crate::people::plain()).await.unwrap();
    assert_eq!(there.invitation(&bob, &room_id).await.unwrap().membership, "invite");
}
