//! What has no position: typing and presence, across instances.

use serde_json::{Value, json};

use crate::{
    moving::{Scene, at, sync},
    pair::until,
};

fn typing(answer: &Value, room_id: &str) -> Option<Value> {
    let events = answer["rooms"]["join"][room_id]["ephemeral"]["events"].as_array()?;
    let event = events.iter().find(|event| event["type"] == "m.typing")?;
    Some(event["content"]["user_ids"].clone())
}

#[tokio::test]
async fn who_types_at_one_instance_is_seen_at_the_other_and_so_is_the_end_of_it() {
    let Scene { alice, bob, bob_there, room_id, .. } = Scene::new().await;
    // The first instance's, who knows all that was done there.
    let since = bob.sync_token().await;
    let path = format!("/_matrix/client/v3/rooms/{room_id}/typing/{}", alice.user_id);

    alice.put(&path, json!({ "typing": true, "timeout": 30_000 })).await.ok();
    let (answer, since) = sync(&bob_there, &since, 90_000).await;
    alice.put(&path, json!({ "typing": false })).await.ok();
    let (later, _) = sync(&bob_there, &since, 90_000).await;

    assert_eq!(typing(&answer, &room_id), Some(json!([alice.user_id])), "{answer}");
    assert_eq!(typing(&later, &room_id), Some(json!([])), "{later}");
}

/// Method: the first instance has counted much typing, so its count is far ahead of the other's.
#[tokio::test]
async fn a_client_that_changes_instance_is_told_of_typing_there() {
    let Scene { place, one, two, alice, bob, room_id, .. } = Scene::new().await;
    let path = format!("/_matrix/client/v3/rooms/{room_id}/typing/{}", alice.user_id);
    for _ in 0..20 {
        alice.put(&path, json!({ "typing": true, "timeout": 30_000 })).await.ok();
        alice.put(&path, json!({ "typing": false })).await.ok();
    }
    let three = place.instance().await;
    let since = bob.sync_token().await;
    for instance in [&one, &two, &three] {
        instance.clock.advance(std::time::Duration::from_millis(1_000));
    }
    let bob_there = at(&three, &bob);

    alice.put(&path, json!({ "typing": true, "timeout": 30_000 })).await.ok();
    let (answer, since) = sync(&bob_there, &since, 90_000).await;
    let (again, _) = sync(&bob, &since, 0).await;

    assert_eq!(typing(&answer, &room_id), Some(json!([alice.user_id])), "{answer}");
    assert_eq!(typing(&again, &room_id), None, "it was told already: {again}");
}

#[tokio::test]
async fn presence_set_at_one_instance_is_seen_at_the_other() {
    let Scene { one, two, alice, bob_there, .. } = Scene::new().await;
    let path = format!("/_matrix/client/v3/presence/{}/status", alice.user_id);

    alice.put(&path, json!({ "presence": "unavailable", "status_msg": "having tea" })).await.ok();
    one.services.presence.round();

    until(&two, "alice is having tea", async || {
        let seen = bob_there.get(&path).await.ok();
        seen["presence"] == "unavailable" && seen["status_msg"] == "having tea"
    })
    .await;
}

/// Method: alice syncs at both instances; at the first her device goes away. A third instance hears both.
#[tokio::test]
async fn a_user_who_leaves_one_instance_and_stays_at_another_is_still_there() {
    let Scene { place, one, two, alice, bob, .. } = Scene::new().await;
    let three = place.instance().await;
    let (alice_there, bob_elsewhere) = (at(&two, &alice), at(&three, &bob));
    let path = format!("/_matrix/client/v3/presence/{}/status", alice.user_id);
    let is_online = async || bob_elsewhere.get(&path).await.ok()["presence"] == "online";
    alice.sync_token().await;
    one.services.presence.round();
    until(&three, "alice is online", is_online).await;

    one.clock.advance(std::time::Duration::from_secs(600));
    two.clock.advance(std::time::Duration::from_secs(600));
    three.clock.advance(std::time::Duration::from_secs(600));
    alice_there.sync_token().await;
    two.services.presence.round();
    let has_heard = async || alice.get(&path).await.ok()["last_active_ago"] == 0;
    until(&one, "alice is active elsewhere", has_heard).await;
    one.services.presence.round();

    until(&three, "alice is still online", is_online).await;
    until(&one, "alice is online", async || alice.get(&path).await.ok()["presence"] == "online").await;
}

/// An instance that dies takes its users' presence with it: nobody else could say that they have gone.
#[tokio::test]
async fn whom_nobody_vouches_for_any_more_is_offline() {
    let Scene { one, two, alice, bob_there, .. } = Scene::new().await;
    let path = format!("/_matrix/client/v3/presence/{}/status", alice.user_id);
    alice.sync_token().await;
    one.services.presence.round();
    until(&two, "alice is online", async || bob_there.get(&path).await.ok()["presence"] == "online").await;

    // The first instance says nothing any more: its clock stands.
    two.clock.advance(std::time::Duration::from_secs(600));
    two.services.presence.round();

    assert_eq!(bob_there.get(&path).await.ok()["presence"], "offline");
}
