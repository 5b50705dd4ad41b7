//! A client goes from one instance to the other with its sync token.

use serde_json::{Value, json};

use crate::{
    fixture::{Client, TestServer, settings},
    pair::{Lossy, Place, catch_up, in_time, until},
};

/// Two instances, Alice and Bob who speak to the first, Bob's device as it speaks to the second, and a room of theirs.
pub(crate) struct Scene {
    pub(crate) place: Place,
    pub(crate) one: TestServer,
    pub(crate) two: TestServer,
    pub(crate) alice: Client,
    pub(crate) bob: Client,
    pub(crate) bob_there: Client,
    pub(crate) room_id: String,
}

impl Scene {
    pub(crate) async fn new() -> Self {
        let place = Place::fresh().await;
        let one = place.instance().await;
        Self::beside(one, place).await
    }

    /// The second instance is told nothing by the first, whose bus loses every message.
    async fn with_a_silent_first() -> Self {
        let place = Place::fresh().await;
        let one = place.instance_with(&place.valkey_url, settings(), |bus| Lossy::boxed(bus, 1)).await;
        Self::beside(one, place).await
    }

    async fn beside(one: TestServer, place: Place) -> Self {
        let two = place.instance().await;
        let [alice, bob] = one.users(["alice", "bob"]).await;
        let room_id = room_of(&[&alice, &bob]).await;
        let bob_there = at(&two, &bob);
        catch_up(&two).await;
        Self { place, one, two, alice, bob, bob_there, room_id }
    }
}

/// The same device, speaking to another instance.
pub(crate) fn at(instance: &TestServer, client: &Client) -> Client {
    let session = json!({ "user_id": client.user_id, "device_id": client.device_id, "access_token": client.token });
    instance.anonymous().with_session(&session)
}

/// A room of everybody's, made by the first of them.
pub(crate) async fn room_of(members: &[&Client]) -> String {
    let room = members[0].post("/_matrix/client/v3/createRoom", json!({ "preset": "public_chat" })).await.ok();
    let room_id = room["room_id"].as_str().unwrap().to_owned();
    for member in &members[1..] {
        member.post(&format!("/_matrix/client/v3/join/{room_id}"), json!({})).await.ok();
    }
    room_id
}

/// Sends a message; its event id.
pub(crate) async fn say(client: &Client, room_id: &str, body: &str) -> String {
    let path = format!("/_matrix/client/v3/rooms/{room_id}/send/m.room.message/{}", body.replace(' ', "_"));
    let sent = client.put(&path, json!({ "msgtype": "m.text", "body": body })).await.ok();
    sent["event_id"].as_str().unwrap().to_owned()
}

pub(crate) async fn sync(client: &Client, since: &str, timeout_ms: u32) -> (Value, String) {
    let path = format!("/_matrix/client/v3/sync?timeout={timeout_ms}&since={since}");
    let answer = in_time("an answer to the sync", client.get(&path)).await.ok();
    let next = answer["next_batch"].as_str().unwrap().to_owned();
    (answer, next)
}

fn said(answer: &Value, room_id: &str) -> Vec<String> {
    let events = answer["rooms"]["join"][room_id]["timeline"]["events"].as_array().cloned().unwrap_or_default();
    events.iter().filter_map(|event| event["content"]["body"].as_str().map(str::to_owned)).collect()
}

/// Method: the second instance is told nothing by the first, so it is behind whenever the client comes with the first one's token.
#[tokio::test]
async fn a_token_of_one_instance_goes_on_at_another_that_has_not_heard_the_news() {
    let scene = Scene::with_a_silent_first().await;
    let Scene { alice, bob: bob_here, bob_there, room_id, .. } = &scene;
    let mut since = bob_here.sync_token().await;
    let (mut seen, mut sent) = (Vec::new(), Vec::new());
    for n in 0..10 {
        for body in [format!("first {n}"), format!("second {n}")] {
            say(alice, room_id, &body).await;
            sent.push(body);
            let bob = if n % 2 == 0 { bob_here } else { bob_there };
            let (answer, next) = sync(bob, &since, 0).await;
            seen.extend(said(&answer, room_id));
            // And at once at the other one.
            let other = if n % 2 == 0 { bob_there } else { bob_here };
            let (answer, next) = sync(other, &next, 0).await;
            seen.extend(said(&answer, room_id));
            since = next;
        }
    }
    let (answer, _) = sync(bob_here, &since, 0).await;
    seen.extend(said(&answer, room_id));

    assert_eq!(seen, sent);
}

/// A message that Bob has read at the second instance is redacted at the first.
async fn redacts_what_bob_has_read_elsewhere(scene: Scene) {
    let Scene { two, alice, bob_there, room_id, .. } = &scene;
    let event_id = say(alice, room_id, "I should not have said this").await;
    let path = format!("/_matrix/client/v3/rooms/{room_id}/event/{event_id}");
    until(two, "the message is there", async || bob_there.get(&path).await.status() == 200).await;
    assert_eq!(bob_there.get(&path).await.ok()["content"]["msgtype"], "m.text");

    let redact = format!("/_matrix/client/v3/rooms/{room_id}/redact/{event_id}/r");
    alice.put(&redact, json!({})).await.ok();

    until(two, "the message is redacted", async || bob_there.get(&path).await.ok()["content"] == json!({})).await;
}

#[tokio::test]
async fn a_message_redacted_at_one_instance_is_gone_at_the_other() {
    redacts_what_bob_has_read_elsewhere(Scene::new().await).await;
}

#[tokio::test]
async fn a_message_whose_redaction_was_not_told_is_gone_at_the_other_instance_too() {
    redacts_what_bob_has_read_elsewhere(Scene::with_a_silent_first().await).await;
}

/// The room that a user joins at one instance is in their sync at the other, also when nobody told of it.
#[tokio::test]
async fn a_room_joined_at_one_instance_is_in_a_sync_waiting_at_the_other() {
    let Scene { alice, bob, bob_there, .. } = Scene::with_a_silent_first().await;
    let room_id = room_of(&[&alice]).await;
    let since = bob.sync_token().await;
    let waiting = tokio::spawn(async move { sync(&bob_there, &since, 90_000).await });

    bob.post(&format!("/_matrix/client/v3/join/{room_id}"), json!({})).await.ok();

    let (answer, _) = in_time("the sync's answer", waiting).await.unwrap();
    assert!(answer["rooms"]["join"][&room_id].is_object(), "{answer}");
}
