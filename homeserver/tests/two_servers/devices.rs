//! Keys of people on the other server: told of when they change, had when asked for, vouched for.

use serde_json::{Value, json};
use services::federation::signing::SigningKey;

use crate::{people::Account, scene::Scene, server::Server};

impl Scene {
    /// Alice's device has this key now.
    async fn alice_uploads(&self, key: &str) {
        let device = &self.alice.device;
        let keys = json!({
            "user_id": self.alice.id, "device_id": device, "algorithms": [], "signatures": {},
            "keys": { format!("curve25519:{device}"): key },
        });
        self.here.asked("POST", "v3/keys/upload", Some(&self.alice), &json!({ "device_keys": keys })).await;
    }

    /// The key of Alice's device as Bob is told.
    async fn bob_sees(&self) -> Option<String> {
        let body = json!({ "device_keys": { self.alice.id.as_str(): [] } });
        let reply = self.there.asked("POST", "v3/keys/query", Some(&self.bob), &body).await;
        let device = &reply["device_keys"][self.alice.id.as_str()][&self.alice.device];
        device["keys"][format!("curve25519:{}", self.alice.device)].as_str().map(str::to_owned)
    }

    /// Where Bob's next sync begins.
    async fn bobs_token(&self) -> String {
        self.there.asked("GET", "v3/sync", Some(&self.bob), &json!({})).await["next_batch"].as_str().unwrap().to_owned()
    }

    async fn until_bob_is_told_of_alice(&self, since: &str) {
        let told =
            || async { tells_of(&self.there, &self.bob, since, "changed").await.contains(&json!(self.alice.id)) };
        self.there.until("alice's devices changed", told).await;
    }
}

/// Whose devices changed, or are no longer of interest, in a sync since `since`.
async fn tells_of(server: &Server, account: &Account, since: &str, what: &str) -> Vec<Value> {
    let reply = server.asked("GET", &format!("v3/sync?since={since}"), Some(account), &json!({})).await;
    reply["device_lists"][what].as_array().cloned().unwrap_or_default()
}

#[tokio::test]
async fn changes_of_a_device_are_told_and_seen_also_after_an_absence() {
    let scene = Scene::new().await;
    scene.there.joins(&scene.bob.id, &scene.room_id, &scene.here).await.unwrap();

    for key in ["first", "second", "third"] {
        let since = scene.bobs_token().await;
        scene.alice_uploads(key).await;
        scene.until_bob_is_told_of_alice(&since).await;
        assert_eq!(scene.bob_sees().await.as_deref(), Some(key));
    }
    let since = scene.bobs_token().await;
    scene.there.vanish();
    scene.alice_uploads("unheard").await;
    scene.here.finds_away(&scene.there).await;
    scene.alice_uploads("last").await;
    scene.there.return_again();

    scene.until_bob_is_told_of_alice(&since).await;
    scene.there.until("the last is seen", || async { scene.bob_sees().await.as_deref() == Some("last") }).await;
}

#[tokio::test]
async fn whoever_comes_into_a_room_or_leaves_it_is_named_to_those_in_it() {
    let Scene { here, there, alice, bob, room_id } = Scene::new().await;
    let carol = here.account("carol").await;
    let token = async || here.asked("GET", "v3/sync", Some(&alice), &json!({})).await["next_batch"].clone();
    let since = token().await;
    let since = since.as_str().unwrap();

    here.asked("POST", &format!("v3/rooms/{room_id}/join"), Some(&carol), &json!({})).await;
    here.until("carol is named", || async { tells_of(&here, &alice, since, "changed").await == [json!(carol.id)] })
        .await;
    let since = token().await;
    let since = since.as_str().unwrap();
    there.joins(&bob.id, &room_id, &here).await.unwrap();
    here.until("bob is named", || async { tells_of(&here, &alice, since, "changed").await == [json!(bob.id)] }).await;
    let since = token().await;
    let since = since.as_str().unwrap();
    there.asked("POST", &format!("v3/rooms/{room_id}/leave"), Some(&bob), &json!({})).await;
    here.until("bob is gone", || async { tells_of(&here, &alice, since, "left").await == [json!(bob.id)] }).await;
}

#[tokio::test]
async fn a_copy_is_not_trusted_after_the_last_shared_room() {
    let scene = Scene::new().await;
    let Scene { here, there, bob, room_id, .. } = &scene;
    there.joins(&bob.id, room_id, here).await.unwrap();
    scene.alice_uploads("first").await;
    there.until("the first is seen", || async { scene.bob_sees().await.as_deref() == Some("first") }).await;

    there.asked("POST", &format!("v3/rooms/{room_id}/leave"), Some(bob), &json!({})).await;
    here.until("bob is gone", || async { here.services.timeline.room(room_id).await.unwrap().inhabitants.joined == 1 })
        .await;
    scene.alice_uploads("unheard").await;
    there.joins(&bob.id, room_id, here).await.unwrap();

    assert_eq!(scene.bob_sees().await.as_deref(), Some("unheard"));
}

#[tokio::test]
async fn somebody_of_another_server_is_vouched_for_before_a_copy_of_their_keys_is_kept() {
    let Scene { here, there, alice, bob, room_id } = Scene::new().await;
    let key = |usage: &str, account: &Account, pair: &SigningKey| json!({ "user_id": account.id, "usage": [usage], "keys": { format!("ed25519:{}", pair.public()): pair.public() } });
    let sign = |mut object: Value, account: &Account, pair: &SigningKey| {
        let mut plain: ruma::CanonicalJsonObject = serde_json::from_value(object.clone()).unwrap();
        plain.remove("signatures");
        let signature = pair.sign_bytes(serde_json::to_string(&plain).unwrap().as_bytes());
        object["signatures"] = json!({ account.id.as_str(): { format!("ed25519:{}", pair.public()): signature } });
        object
    };
    let [master, user_signing, bobs] = [0, 1, 2].map(|_| SigningKey::generate(&here.cx.randomness).unwrap().2);
    let own = json!({ "master_key": key("master", &alice, &master),
        "user_signing_key": sign(key("user_signing", &alice, &user_signing), &alice, &master) });
    here.asked("POST", "v3/keys/device_signing/upload", Some(&alice), &own).await;
    let theirs = json!({ "master_key": key("master", &bob, &bobs) });
    there.asked("POST", "v3/keys/device_signing/upload", Some(&bob), &theirs).await;

    let signed = sign(key("master", &bob, &bobs), &alice, &user_signing);
    let body = json!({ bob.id.as_str(): { bobs.public(): signed } });
    let reply = here.asked("POST", "v3/keys/signatures/upload", Some(&alice), &body).await;

    assert_eq!(reply["failures"].as_object().map_or(0, serde_json::Map::len), 0, "{reply}");
    there.joins(&bob.id, &room_id, &here).await.unwrap();
    let query = json!({ "device_keys": { bob.id.as_str(): [] } });
    let reply = here.asked("POST", "v3/keys/query", Some(&alice), &query).await;
    let signatures = &reply["master_keys"][bob.id.as_str()]["signatures"][alice.id.as_str()];
    assert!(signatures[format!("ed25519:{}", user_signing.public())].is_string(), "{reply}");
}
