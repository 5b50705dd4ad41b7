//! What travels beside events: typing, receipts, messages between devices, keys, profiles, aliases.

use serde_json::{Value, json};

use crate::scene::Scene;

#[tokio::test]
async fn typing_is_seen_on_the_other_side() {
    let Scene { here, there, bob, room_id, .. } = Scene::with_bob_inside().await;
    let heard = std::sync::Arc::new(tokio::sync::Notify::new());
    let ring = std::sync::Arc::clone(&heard);
    here.cx.notify.on_whisper(move |_| ring.notify_one());

    let path = format!("v3/rooms/{room_id}/typing/{}", bob.id);
    there.asked("PUT", &path, Some(&bob), &json!({ "typing": true, "timeout": 60_000 })).await;

    let nid = here.services.timeline.room_nid(&room_id).await.unwrap();
    let bob = here.cx.numbers.user(&bob.id).await.unwrap();
    while here.services.typing.room(nid).0 != [bob] {
        heard.notified().await;
    }
}

#[tokio::test]
async fn a_receipt_is_seen_on_the_other_side() {
    let Scene { here, there, alice, bob, room_id } = Scene::with_bob_inside().await;
    let sent = here.says(&alice.id, &room_id, "read me").await;
    there.until("the message came", || async { there.words_in(&room_id).await.len() == 1 }).await;

    let path = format!("v3/rooms/{room_id}/receipt/m.read/{}", sent.event_id);
    there.asked("POST", &path, Some(&bob), &json!({})).await;

    let nid = here.services.timeline.room_nid(&room_id).await.unwrap();
    let reader = here.cx.numbers.user(&alice.id).await.unwrap();
    let has_come = || async {
        let receipts = here.services.receipts.since(&[(nid, 0)], i64::MAX, reader).await.unwrap();
        receipts.iter().any(|receipt| receipt.event_id == sent.event_id.as_str())
    };
    here.until("the receipt came", has_come).await;
}

#[tokio::test]
async fn a_message_reaches_a_device_elsewhere_also_after_an_absence() {
    let Scene { here, there, alice, bob, .. } = Scene::with_bob_inside().await;
    let send = async |txn: &str| {
        let body = json!({ "messages": { bob.id.as_str(): { bob.device.as_str(): { "txn": txn } } } });
        here.asked("PUT", &format!("v3/sendToDevice/org.example.test/{txn}"), Some(&alice), &body).await
    };
    let received = async || -> Vec<Value> {
        let reply = there.asked("GET", "v3/sync", Some(&bob), &json!({})).await;
        let events = reply["to_device"]["events"].as_array().cloned().unwrap_or_default();
        events.into_iter().map(|event| event["content"]["txn"].clone()).collect()
    };

    send("1").await;
    there.until("the first came", || async { received().await.len() == 1 }).await;
    there.vanish();
    send("2").await;
    here.finds_away(&there).await;
    send("3").await;
    there.return_again();

    there.until("all came", || async { received().await.len() == 3 }).await;
    assert_eq!(received().await, ["1", "2", "3"]);
}

#[tokio::test]
async fn profiles_and_aliases_are_found_across_servers() {
    let Scene { here, there, alice, bob, room_id } = Scene::with_bob_inside().await;
    let path = format!("v3/profile/{}/displayname", alice.id);
    here.asked("PUT", &path, Some(&alice), &json!({ "displayname": "Alice" })).await;
    let mut tx = here.cx.store.begin().await.unwrap();
    let alias = format!("#lounge:{}", here.name);
    storage::aliases::put(&mut tx, &alias, room_id.as_str(), alice.id.as_str()).await.unwrap();
    tx.commit().await.unwrap();

    let profile = there.asked("GET", &format!("v3/profile/{}", alice.id), Some(&bob), &json!({})).await;
    let alias: ruma::OwnedRoomAliasId = alias.try_into().unwrap();
    let (found, servers) = there.services.directory.resolve(&alias).await.unwrap();

    assert_eq!(profile["displayname"], "Alice");
    assert_eq!(found, room_id);
    assert!(servers.contains(&here.name) && servers.contains(&there.name), "{servers:?}");
}

#[tokio::test]
async fn the_profile_of_somebody_the_other_server_does_not_have_is_not_found() {
    let Scene { here, there, bob, .. } = Scene::with_bob_inside().await;
    let nobody = format!("@nobody:{}", here.name);

    for path in [format!("v3/profile/{nobody}"), format!("v3/profile/{nobody}/displayname")] {
        let (status, reply) = there.answers("GET", &path, Some(&bob), &json!({})).await;
        assert_eq!((status, &reply["errcode"]), (404, &json!("M_NOT_FOUND")), "{path}: {reply}");
    }
}
