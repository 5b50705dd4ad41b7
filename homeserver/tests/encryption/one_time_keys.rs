//! One-time keys and fallback keys.

use serde_json::{Value, json};

use crate::{
    fixture::{Client, TestServer},
    key_ring::one_time_key,
};

const UPLOAD: &str = "/_matrix/client/v3/keys/upload";
const CLAIM: &str = "/_matrix/client/v3/keys/claim";

/// The keys that `client` gets when claiming one of `owner`'s device.
async fn claims(client: &Client, owner: &Client) -> Value {
    let body = json!({ "one_time_keys": { &owner.user_id: { &owner.device_id: "signed_curve25519" } } });
    client.post(CLAIM, body).await.ok()["one_time_keys"].clone()
}

fn only(owner: &Client, name: &str, key: &Value) -> Value {
    json!({ &owner.user_id: { &owner.device_id: { name: key } } })
}

async fn uploads(client: &Client, keys: Value) -> Value {
    client.post(UPLOAD, json!({ "one_time_keys": keys })).await.ok()["one_time_key_counts"].clone()
}

async fn unused_fallback_types(client: &Client) -> Value {
    client.get("/_matrix/client/v3/sync").await.ok()["device_unused_fallback_key_types"].clone()
}

#[tokio::test]
async fn a_one_time_key_is_given_out_once() {
    let server = TestServer::start().await;
    let [alice, bob] = server.users(["alice", "bob"]).await;
    let key = one_time_key(1);
    uploads(&alice, json!({ "signed_curve25519:1": key })).await;

    assert_eq!(claims(&bob, &alice).await, only(&alice, "signed_curve25519:1", &key));
    assert_eq!(claims(&bob, &alice).await, json!({}));
}

#[tokio::test]
async fn keys_are_given_out_in_the_order_of_their_uploads() {
    let server = TestServer::start().await;
    let [alice, bob] = server.users(["alice", "bob"]).await;
    uploads(&alice, json!({ "signed_curve25519:9": one_time_key(9) })).await;
    uploads(&alice, json!({ "signed_curve25519:0": one_time_key(0) })).await;

    assert_eq!(claims(&bob, &alice).await, only(&alice, "signed_curve25519:9", &one_time_key(9)));
    assert_eq!(claims(&bob, &alice).await, only(&alice, "signed_curve25519:0", &one_time_key(0)));
}

#[tokio::test]
async fn uploading_a_key_twice_keeps_one() {
    let server = TestServer::start().await;
    let [alice] = server.users(["alice"]).await;
    let (a, b, c, d) = (one_time_key(1), one_time_key(2), one_time_key(3), one_time_key(4));
    let names = ["signed_curve25519:A", "signed_curve25519:B", "signed_curve25519:C", "signed_curve25519:D"];

    let first = uploads(&alice, json!({ names[0]: a, names[1]: b, names[2]: c })).await;
    let second = uploads(&alice, json!({ names[1]: b, names[2]: c, names[3]: d })).await;

    assert_eq!((first, second), (json!({ "signed_curve25519": 3 }), json!({ "signed_curve25519": 4 })));
}

#[tokio::test]
async fn another_key_of_the_same_name_is_refused() {
    let server = TestServer::start().await;
    let [alice, bob] = server.users(["alice", "bob"]).await;
    uploads(&alice, json!({ "signed_curve25519:1": one_time_key(1) })).await;

    let body = json!({ "one_time_keys": { "signed_curve25519:1": one_time_key(2) } });
    let reply = alice.post(UPLOAD, body).await;

    assert_eq!(reply.refusal(), (400, "M_INVALID_PARAM".into()));
    // Clients look for these words.
    assert!(reply.json()["error"].as_str().unwrap().starts_with("One time key signed_curve25519:1 already exists."));
    assert_eq!(claims(&bob, &alice).await, only(&alice, "signed_curve25519:1", &one_time_key(1)));
}

/// A client that did not hear the answer to its upload sends it again; meanwhile somebody took a key.
#[tokio::test]
async fn a_key_uploaded_again_after_it_was_taken_is_not_given_out_again() {
    let server = TestServer::start().await;
    let [alice, bob] = server.users(["alice", "bob"]).await;
    let keys = json!({ "signed_curve25519:1": one_time_key(1) });
    uploads(&alice, keys.clone()).await;
    claims(&bob, &alice).await;

    let counts = uploads(&alice, keys).await;

    assert_eq!(counts, json!({ "signed_curve25519": 0 }));
    assert_eq!(claims(&bob, &alice).await, json!({}));
}

#[tokio::test]
async fn the_fallback_key_is_given_out_when_no_other_is_left_and_stays() {
    let server = TestServer::start().await;
    let [alice, bob] = server.users(["alice", "bob"]).await;
    let mut fallback = one_time_key(7);
    fallback["fallback"] = json!(true);
    let body = json!({
        "one_time_keys": { "signed_curve25519:1": one_time_key(1) },
        "fallback_keys": { "signed_curve25519:F": fallback },
    });
    alice.post(UPLOAD, body).await.ok();

    assert_eq!(unused_fallback_types(&alice).await, json!(["signed_curve25519"]));
    assert_eq!(claims(&bob, &alice).await, only(&alice, "signed_curve25519:1", &one_time_key(1)));
    for _ in 0..2 {
        assert_eq!(claims(&bob, &alice).await, only(&alice, "signed_curve25519:F", &fallback));
    }
    assert_eq!(unused_fallback_types(&alice).await, json!([]));
}

#[tokio::test]
async fn a_new_fallback_key_is_unused_and_the_old_one_again_is_not() {
    let server = TestServer::start().await;
    let [alice, bob] = server.users(["alice", "bob"]).await;
    let upload = |name: &str, nth| json!({ "fallback_keys": { name: one_time_key(nth) } });
    alice.post(UPLOAD, upload("signed_curve25519:F", 1)).await.ok();
    claims(&bob, &alice).await;

    alice.post(UPLOAD, upload("signed_curve25519:F", 1)).await.ok();
    let again = unused_fallback_types(&alice).await;
    alice.post(UPLOAD, upload("signed_curve25519:G", 2)).await.ok();
    let renewed = unused_fallback_types(&alice).await;

    assert_eq!((again, renewed), (json!([]), json!(["signed_curve25519"])));
}

#[tokio::test]
async fn claiming_keys_of_another_server_without_federation_names_the_server_that_failed() {
    let server = TestServer::start().await;
    let [alice] = server.users(["alice"]).await;

    let body = json!({ "one_time_keys": { "@bob:elsewhere.example": { "DEVICE": "signed_curve25519" } } });
    let answer = alice.post(CLAIM, body).await.ok();

    assert_eq!(answer["failures"]["elsewhere.example"]["status"], 503);
    assert_eq!(answer["one_time_keys"], json!({}));
}

#[tokio::test]
async fn keys_that_are_no_keys_or_too_many_are_refused() {
    let server = TestServer::start().await;
    let [alice] = server.users(["alice"]).await;
    let large = json!({ "key": "A".repeat(5000), "signatures": {} });
    let many: serde_json::Map<_, _> = (0..1001).map(|n| (format!("signed_curve25519:{n}"), one_time_key(1))).collect();

    let refusal = |keys: Value| {
        let alice = alice.clone();
        async move { alice.post(UPLOAD, json!({ "one_time_keys": keys })).await.refusal() }
    };
    assert_eq!(refusal(json!({ "signed_curve25519:1": 5 })).await, (400, "M_BAD_JSON".into()));
    assert_eq!(refusal(json!({ "signed_curve25519:1": large })).await, (413, "M_TOO_LARGE".into()));
    assert_eq!(refusal(Value::Object(many)).await, (413, "M_TOO_LARGE".into()));
    assert_eq!(uploads(&alice, json!({})).await, json!({ "signed_curve25519": 0 }));
}
