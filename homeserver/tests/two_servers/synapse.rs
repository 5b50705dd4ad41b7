//! The same things with a server that is not ours: Synapse.
//!
//! Runs when `SYNAPSE_URL` (its client API), `SYNAPSE_NAME` and `SYNAPSE_TLS` are set; the last is a folder with `ca.crt`, which
//! Synapse trusts, and `server.crt` and `server.key` for `localhost`, signed by it.

#![allow(clippy::disallowed_methods, reason = "tests take the address of a Synapse from the environment")]

use std::{path::Path, time::Duration};

use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId, RoomVersionId};
use serde_json::{Value, json};

use crate::{
    people::plain,
    server::{Authority, Server},
};

/// A user of the Synapse.
struct Stranger {
    http: reqwest::Client,
    url: String,
    token: String,
    id: OwnedUserId,
}

fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} says where Synapse is"))
}

impl Stranger {
    async fn register(name: &str) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        #[expect(clippy::disallowed_methods, reason = "a test's own client, of another server's client API")]
        let http = reqwest::Client::new();
        let url = setting("SYNAPSE_URL");
        let name = format!("{name}-{:x}", std::process::id() as u64 * 1000 + rand_part());
        let body = json!({ "username": name, "password": "pass word 1", "auth": { "type": "m.login.dummy" } });
        let reply: Value = http
            .post(format!("{url}/_matrix/client/v3/register"))
            .json(&body)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        let text = |field: &str| reply[field].as_str().unwrap_or_else(|| panic!("{reply}")).to_owned();
        Self { http, url, token: text("access_token"), id: text("user_id").try_into().unwrap() }
    }

    async fn asks(&self, method: reqwest::Method, path: &str, body: &Value) -> Value {
        let request = self.http.request(method, format!("{}/_matrix/client/v3/{path}", self.url));
        let reply = request.bearer_auth(&self.token).json(body).send().await.unwrap();
        let status = reply.status();
        let body: Value = reply.json().await.unwrap();
        assert!(status.is_success(), "{path}: {body}");
        body
    }

    async fn makes_a_room(&self, version: &str) -> OwnedRoomId {
        let body = json!({ "preset": "public_chat", "room_version": version });
        let reply = self.asks(reqwest::Method::POST, "createRoom", &body).await;
        reply["room_id"].as_str().unwrap().try_into().unwrap()
    }

    async fn says(&self, room_id: &OwnedRoomId, words: &str) {
        let path = format!("rooms/{room_id}/send/m.room.message/{words}");
        self.asks(reqwest::Method::PUT, &path, &json!({ "msgtype": "m.text", "body": words })).await;
    }

    /// What the user sees said in the room, the earliest first.
    async fn words_in(&self, room_id: &OwnedRoomId) -> Vec<String> {
        let path = format!("rooms/{room_id}/messages?dir=b&limit=100");
        let reply = self.asks(reqwest::Method::GET, &path, &json!({})).await;
        let chunk = reply["chunk"].as_array().unwrap().iter().rev();
        let messages = chunk.filter(|event| event["type"] == "m.room.message");
        messages.map(|event| event["content"]["body"].as_str().unwrap_or_default().to_owned()).collect()
    }

    async fn state_of(&self, room_id: &OwnedRoomId) -> Vec<(String, String, String)> {
        let reply = self.asks(reqwest::Method::GET, &format!("rooms/{room_id}/state"), &json!({})).await;
        let text = |event: &Value, field: &str| event[field].as_str().unwrap().to_owned();
        let events = reply.as_array().unwrap().iter();
        let mut state: Vec<_> = events.map(|e| (text(e, "type"), text(e, "state_key"), text(e, "event_id"))).collect();
        state.sort();
        state
    }

    async fn hears(&self, room_id: &OwnedRoomId, words: &str) {
        for _ in 0..200 {
            if self.words_in(room_id).await.iter().any(|heard| heard == words) {
                return;
            }
            // Another server's client API tells of nothing we could wait for here.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{} never heard {words:?}: {:?}", self.id, self.words_in(room_id).await);
    }
}

fn rand_part() -> u64 {
    services::clock::Randomness::system().below(1000)
}

async fn ours() -> (Server, OwnedServerName) {
    let folder = setting("SYNAPSE_TLS");
    let folder = Path::new(&folder);
    (Server::start(&Authority::of_files(folder)).await, setting("SYNAPSE_NAME").try_into().unwrap())
}

#[tokio::test]
#[ignore = "needs a Synapse; see the module's description"]
async fn our_user_joins_a_room_of_synapse_and_both_hear_each_other() {
    let (here, synapse) = ours().await;
    let bob = here.user("bob").await;
    let alice = Stranger::register("alice").await;
    for version in ["10", "11", "12"] {
        let room_id = alice.makes_a_room(version).await;
        for n in 0..30 {
            alice.says(&room_id, &format!("before-{n}")).await;
        }

        let via = std::slice::from_ref(&synapse);
        let now = here.services.joining.join(&bob, &room_id, via, &plain()).await.unwrap();
        alice.says(&room_id, "welcome").await;
        here.until("the welcome came", || async { here.words_in(&room_id).await.contains(&"welcome".into()) }).await;
        here.says(&bob, &room_id, "thanks").await;
        alice.hears(&room_id, "thanks").await;

        while here.services.incoming.backfill(now.nid, i64::MAX, 20).await.unwrap() > 0 {}
        let mut expected: Vec<String> = (0..30).map(|n| format!("before-{n}")).collect();
        expected.extend(["welcome".to_owned(), "thanks".to_owned()]);
        assert_eq!(here.words_in(&room_id).await, expected, "version {version}");
        assert_eq!(here.state_of(&room_id).await, alice.state_of(&room_id).await, "version {version}");
    }
}

#[tokio::test]
#[ignore = "needs a Synapse; see the module's description"]
async fn a_user_of_synapse_joins_our_room_and_both_hear_each_other() {
    let (here, _) = ours().await;
    let bob = here.user("bob").await;
    let alice = Stranger::register("alice").await;
    for version in [RoomVersionId::V10, RoomVersionId::V11, RoomVersionId::V12] {
        let room_id = here.room(&bob, version.clone(), "public").await;
        here.says(&bob, &room_id, "come-in").await;

        alice.asks(reqwest::Method::POST, &format!("join/{room_id}?server_name={}", here.name), &json!({})).await;
        alice.says(&room_id, "here-I-am").await;
        here.until("she spoke", || async { here.words_in(&room_id).await.contains(&"here-I-am".into()) }).await;
        here.says(&bob, &room_id, "hello").await;
        alice.hears(&room_id, "hello").await;

        alice.hears(&room_id, "come-in").await;
        assert_eq!(here.state_of(&room_id).await, alice.state_of(&room_id).await, "version {version}");
    }
}

#[tokio::test]
#[ignore = "needs a Synapse; see the module's description"]
async fn invitations_go_both_ways_with_synapse() {
    let (here, synapse) = ours().await;
    let bob = here.user("bob").await;
    let alice = Stranger::register("alice").await;
    let ours = here.room(&bob, RoomVersionId::V12, "invite").await;
    let hers = alice.makes_a_room("11").await;

    let now = here.services.timeline.room(&ours).await.unwrap();
    here.services.joining.invite(&now, &bob, &alice.id, &plain()).await.unwrap();
    alice.asks(reqwest::Method::POST, &format!("join/{ours}"), &json!({})).await;
    let body = json!({ "user_id": bob });
    alice.asks(reqwest::Method::POST, &format!("rooms/{hers}/invite"), &body).await;

    assert_eq!(here.invitation(&bob, &hers).await.unwrap().membership, "invite");
    here.services.joining.leave(&bob, &hers, &plain()).await.unwrap();
    let state = alice.asks(reqwest::Method::GET, &format!("rooms/{hers}/state/m.room.member/{bob}"), &json!({})).await;
    assert_eq!(state["membership"], "leave");
    let now = here.services.timeline.room(&ours).await.unwrap();
    assert_eq!(now.inhabitants.joined, 2);
    let _ = synapse;
}

#[tokio::test]
#[ignore = "needs a Synapse; see the module's description"]
async fn both_fork_a_room_and_agree_with_synapse_afterwards() {
    let (here, synapse) = ours().await;
    let bob = here.user("bob").await;
    let alice = Stranger::register("alice").await;
    let room_id = alice.makes_a_room("11").await;
    here.services.joining.join(&bob, &room_id, std::slice::from_ref(&synapse), &plain()).await.unwrap();
    let levels = json!({ "users": { alice.id.as_str(): 100, bob.as_str(): 100 } });
    let path = format!("rooms/{room_id}/state/m.room.power_levels");
    alice.asks(reqwest::Method::PUT, &path, &levels).await;
    let agree = || async { here.state_of(&room_id).await == alice.state_of(&room_id).await };
    here.until("the levels came", agree).await;

    here.vanish();
    for n in 0..3 {
        let path = format!("rooms/{room_id}/state/m.room.topic");
        alice.asks(reqwest::Method::PUT, &path, &json!({ "topic": format!("hers {n}") })).await;
        let path = format!("rooms/{room_id}/state/org.example.hers");
        alice.asks(reqwest::Method::PUT, &path, &json!({ "n": n })).await;
    }
    here.return_again();
    here.sets(&bob, &room_id, "m.room.topic", "", json!({ "topic": "ours" })).await;
    here.says(&bob, &room_id, "back").await;
    alice.hears(&room_id, "back").await;
    alice.says(&room_id, "good").await;

    here.until("the good came", || async { here.words_in(&room_id).await.contains(&"good".into()) }).await;
    assert_eq!(here.state_of(&room_id).await, alice.state_of(&room_id).await);
}
