//! The one door, on real databases: order, state, counts, and what happens when several write at once.

#![allow(clippy::disallowed_methods, reason = "tests take the address of PostgreSQL from the environment")]

use std::sync::Arc;

use room::build::Draft;
use ruma::{OwnedRoomId, OwnedUserId, RoomVersionId, user_id};
use serde_json::{json, value::to_raw_value};
use services::{
    Context,
    clock::{Clock, Randomness},
    context::Ground,
    federation::signing::SigningKey,
    notify::Notify,
    push_rules::Rules,
    timeline::{Timeline, Wish, now::RoomNow},
};
use storage::{Settings, Store, numbers::Numbers};

/// A server's ground on `url`.
async fn context(url: &str) -> Context {
    let store = Store::connect(&Settings::new(url)).await.unwrap();
    let server_name = ruma::OwnedServerName::try_from("example.org").unwrap();
    let randomness = Randomness::seeded(7);
    Context::new(Ground {
        numbers: Numbers::new(store.clone(), &server_name),
        notify: Notify::start(store.clone()).await.unwrap(),
        clock: Clock::fixed(1_767_225_600_000),
        signing_key: SigningKey::generate(&randomness).unwrap().2,
        randomness,
        server_name,
        store,
    })
}

/// Addresses of a fresh database of each kind; the folder must outlive the test.
async fn databases() -> (tempfile::TempDir, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let file = format!("sqlite://{}", folder.path().join("rooms.db").display());
    let base =
        std::env::var("TEST_POSTGRES_URL").expect("TEST_POSTGRES_URL names a PostgreSQL to test on; ./test starts one");
    let schema = format!("t{}", Randomness::system().letters(12).to_lowercase());
    let postgres = storage::fresh_schema(&base, &schema).await.unwrap();
    (folder, vec![file, postgres])
}

fn draft(kind: &str, sender: &OwnedUserId, content: serde_json::Value) -> Draft {
    Draft::message(kind, sender.clone(), to_raw_value(&content).unwrap())
}

fn state(kind: &str, key: &str, sender: &OwnedUserId, content: serde_json::Value) -> Draft {
    Draft::state(kind, key, sender.clone(), to_raw_value(&content).unwrap())
}

async fn public_room(timeline: &Timeline, alice: &OwnedUserId, version: RoomVersionId) -> Arc<RoomNow> {
    let create = state("m.room.create", "", alice, json!({"room_version": version, "creator": alice}));
    let id = OwnedRoomId::try_from("!room:example.org").unwrap();
    // The creators of version 12 have power without being named, and must not be.
    let levels = if version == RoomVersionId::V12 { json!({}) } else { json!({"users": {alice.as_str(): 100}}) };
    timeline
        .create(&version, create, Some(id), |_| {
            vec![
                Wish::from(state("m.room.member", alice.as_str(), alice, json!({"membership": "join"}))),
                Wish::from(state("m.room.power_levels", "", alice, levels)),
                Wish::from(state("m.room.join_rules", "", alice, json!({"join_rule": "public"}))),
            ]
        })
        .await
        .unwrap()
}

#[tokio::test]
async fn a_room_of_each_version_is_made_joined_and_written_to() {
    let (_folder, urls) = databases().await;
    for url in urls {
        let cx = context(&url).await;
        let timeline = Timeline::start(cx.clone(), Rules::new(cx.clone()));
        let alice = user_id!("@alice:example.org").to_owned();
        let bob = user_id!("@bob:example.org").to_owned();

        for version in [RoomVersionId::V11, RoomVersionId::V12] {
            let room = public_room(&timeline, &alice, version).await;
            timeline
                .append(room.nid, state("m.room.member", bob.as_str(), &bob, json!({"membership": "join"})))
                .await
                .unwrap();
            let sent = timeline
                .append(room.nid, draft("m.room.message", &bob, json!({"body": "hi", "msgtype": "m.text"})))
                .await
                .unwrap();

            let now = timeline.now(room.nid).await.unwrap();
            assert_eq!(now.inhabitants.joined, 2);
            assert_eq!(now.notify_seq, 1);
            assert_eq!(now.last_pos, sent.pos);
            assert_eq!(now.heads.len(), 1);
            assert_eq!(now.facts.join_rule.as_deref(), Some("public"));
            let recent = timeline.recent_since(room.nid, now.last_pos - 1).unwrap();
            assert_eq!(recent.len(), 1);
            assert_eq!(recent[0].event.pdu.event_id, sent.event_id);
        }
    }
}

/// The clock stands, and the create events say the same: in version 12 they would be one event, and so one room.
#[tokio::test]
async fn rooms_made_at_one_moment_are_several() {
    let (_folder, urls) = databases().await;
    for url in urls {
        let cx = context(&url).await;
        let timeline = Timeline::start(cx.clone(), Rules::new(cx.clone()));
        let alice = user_id!("@alice:example.org").to_owned();

        let first = public_room(&timeline, &alice, RoomVersionId::V12).await;
        let second = public_room(&timeline, &alice, RoomVersionId::V12).await;

        assert_ne!(first.room_id, second.room_id);
    }
}

#[tokio::test]
async fn what_the_rules_refuse_leaves_nothing_behind() {
    let (_folder, urls) = databases().await;
    for url in urls {
        let cx = context(&url).await;
        let timeline = Timeline::start(cx.clone(), Rules::new(cx.clone()));
        let alice = user_id!("@alice:example.org").to_owned();
        let stranger = user_id!("@stranger:example.org").to_owned();
        let room = public_room(&timeline, &alice, RoomVersionId::V12).await;
        let before = cx.notify.stable();

        let refused = timeline.append(room.nid, draft("m.room.message", &stranger, json!({"body": "hi"}))).await;

        assert!(matches!(refused, Err(services::Error::Refused(_))), "{refused:?}");
        assert_eq!(cx.notify.stable(), before);
        assert_eq!(timeline.now(room.nid).await.unwrap().head_ver, room.head_ver);
    }
}

/// Positions are gapless and every event is in the stream once, whoever wrote it: two instances, eight senders each, one room.
#[tokio::test(flavor = "multi_thread")]
async fn two_instances_write_one_room_and_nothing_is_lost_or_doubled() {
    let (_folder, urls) = databases().await;
    let url = urls.last().unwrap();
    let here = context(url).await;
    let there = context(url).await;
    let (one, other) = (
        Timeline::start(here.clone(), Rules::new(here.clone())),
        Timeline::start(there.clone(), Rules::new(there.clone())),
    );
    let alice = user_id!("@alice:example.org").to_owned();
    let room = public_room(&one, &alice, RoomVersionId::V12).await;

    let mut senders = tokio::task::JoinSet::new();
    for sender in 0..16 {
        let (timeline, alice, nid) =
            (if sender % 2 == 0 { one.clone() } else { other.clone() }, alice.clone(), room.nid);
        senders.spawn(async move {
            let mut sent = Vec::new();
            for n in 0..10 {
                let body = json!({"body": format!("{sender} {n}"), "msgtype": "m.text"});
                let done = loop {
                    match timeline.append(nid, draft("m.room.message", &alice, body.clone())).await {
                        Ok(done) => break done,
                        Err(services::Error::Limited { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                };
                sent.push((done.pos, done.event_id.to_string()));
            }
            sent
        });
    }
    let mut acknowledged: Vec<(i64, String)> = senders.join_all().await.into_iter().flatten().collect();
    acknowledged.sort();

    let stored =
        storage::timeline::between(&mut here.store.read().await.unwrap(), room.last_pos, i64::MAX, 1000).await.unwrap();
    let stored: Vec<(i64, String)> = stored.into_iter().map(|row| (row.pos, row.event.event_id)).collect();
    assert_eq!(stored, acknowledged);
    let first = stored[0].0;
    assert!(stored.iter().zip(first..).all(|((pos, _), expected)| *pos == expected), "positions have gaps");
    here.notify.repair().await.unwrap();
    assert_eq!(here.notify.stable(), stored.last().unwrap().0);
}

/// A send costs four statements once the room is warm.
#[tokio::test]
async fn a_warm_send_costs_four_statements() {
    let (_folder, urls) = databases().await;
    for url in urls {
        let cx = context(&url).await;
        let timeline = Timeline::start(cx.clone(), Rules::new(cx.clone()));
        let alice = user_id!("@alice:example.org").to_owned();
        let room = public_room(&timeline, &alice, RoomVersionId::V12).await;
        let hello = || draft("m.room.message", &alice, json!({"body": "hi", "msgtype": "m.text"}));
        timeline.append(room.nid, hello()).await.unwrap();

        let before = cx.store.statement_count();
        timeline.append(room.nid, hello()).await.unwrap();

        let count = cx.store.statement_count() - before;
        assert!(count <= 4, "{count} statements on {url}");
    }
}

/// What is not in the stream is told by a whisper alone, and whispers are lost.
#[tokio::test]
async fn an_event_that_another_instance_changed_is_read_anew_when_news_were_missed() {
    let (_folder, urls) = databases().await;
    for url in urls {
        let cx = context(&url).await;
        let timeline = Timeline::start(cx.clone(), Rules::new(cx.clone()));
        let alice = user_id!("@alice:example.org").to_owned();
        let room = public_room(&timeline, &alice, RoomVersionId::V11).await;
        let sent = timeline.append(room.nid, draft("m.room.message", &alice, json!({"body": "oh"}))).await.unwrap();
        let known = timeline.events.by_id(&sent.event_id).await.unwrap().unwrap();
        let mut tx = cx.store.begin().await.unwrap();
        let changed = known.flags | storage::events::flags::REDACTED;
        storage::events::set_body(&mut tx, known.nid, changed, known.pdu.json.as_bytes()).await.unwrap();
        tx.commit().await.unwrap();

        cx.notify.missed();

        let known = timeline.events.by_id(&sent.event_id).await.unwrap().unwrap();
        assert!(known.has(storage::events::flags::REDACTED));
    }
}
