//! A device that receives while its user is logged in nowhere (MSC3814).

use serde_json::{Value, json};

use crate::{
    fixture::{Client, TestServer},
    key_ring::{Key, device_keys, one_time_key, query},
};

const DEHYDRATED: &str = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device";

/// What dehydrates a device of this name.
fn device(owner: &Client, name: &str) -> Value {
    let mut as_device = owner.clone();
    as_device.device_id = name.to_owned();
    let key = Key::named(name);
    json!({
        "device_id": name,
        "initial_device_display_name": "asleep",
        "device_data": { "algorithm": "org.matrix.msc3814.v2", "device_pickle": "c2VjcmV0", "nonce": "bm9uY2U" },
        "device_keys": key.signs(&owner.user_id, &device_keys(&as_device, &key)),
        "one_time_keys": { "signed_curve25519:1": one_time_key(1) },
    })
}

async fn sends(from: &Client, to: &str, n: u32) {
    let path = format!("/_matrix/client/v3/sendToDevice/my.type/txn{n}");
    from.put(&path, json!({ "messages": { to: { "*": { "n": n } } } })).await.ok();
}

#[tokio::test]
async fn a_dehydrated_device_is_found_given_keys_of_and_brought_back_with_its_messages() {
    let server = TestServer::start().await;
    let [alice, bob] = server.users(["alice", "bob"]).await;
    let body = device(&alice, "ASLEEP");

    assert_eq!(alice.put(DEHYDRATED, body.clone()).await.ok(), json!({ "device_id": "ASLEEP" }));
    let claim = json!({ "one_time_keys": { &alice.user_id: { "ASLEEP": "signed_curve25519" } } });
    let claimed = bob.post("/_matrix/client/v3/keys/claim", claim).await.ok();
    sends(&bob, &alice.user_id, 1).await;
    sends(&bob, &alice.user_id, 2).await;

    let shown = &query(&bob, &alice.user_id).await["device_keys"][&alice.user_id]["ASLEEP"];
    assert_eq!(shown["keys"], body["device_keys"]["keys"]);
    assert_eq!(claimed["one_time_keys"][&alice.user_id]["ASLEEP"]["signed_curve25519:1"], one_time_key(1));
    assert_eq!(alice.get(DEHYDRATED).await.ok(), json!({ "device_id": "ASLEEP", "device_data": body["device_data"] }));
    let path = format!("{DEHYDRATED}/ASLEEP/events");
    let events = alice.post(&path, json!({})).await.ok();
    let numbers: Vec<_> = events["events"].as_array().unwrap().iter().map(|e| e["content"]["n"].clone()).collect();
    assert_eq!(numbers, [1, 2]);
    let rest = alice.post(&path, json!({ "next_batch": events["next_batch"] })).await.ok();
    assert_eq!(rest["events"], json!([]));
}

#[tokio::test]
async fn a_new_dehydrated_device_replaces_the_last_one() {
    let server = TestServer::start().await;
    let [alice] = server.users(["alice"]).await;
    alice.put(DEHYDRATED, device(&alice, "FIRST")).await.ok();

    alice.put(DEHYDRATED, device(&alice, "SECOND")).await.ok();

    let devices = &query(&alice, &alice.user_id).await["device_keys"][&alice.user_id];
    assert_eq!(devices.as_object().unwrap().keys().collect::<Vec<_>>(), ["SECOND"]);
    let path = format!("{DEHYDRATED}/FIRST/events");
    assert_eq!(alice.post(&path, json!({})).await.refusal(), (404, "M_NOT_FOUND".into()));
}

#[tokio::test]
async fn a_deleted_dehydrated_device_is_gone() {
    let server = TestServer::start().await;
    let [alice] = server.users(["alice"]).await;
    alice.put(DEHYDRATED, device(&alice, "ASLEEP")).await.ok();

    assert_eq!(alice.delete(DEHYDRATED).await.ok(), json!({ "device_id": "ASLEEP" }));

    assert_eq!(alice.get(DEHYDRATED).await.refusal(), (404, "M_NOT_FOUND".into()));
    assert_eq!(query(&alice, &alice.user_id).await["device_keys"][&alice.user_id], json!({}));
}

#[tokio::test]
async fn a_logged_in_device_cannot_be_dehydrated_over() {
    let server = TestServer::start().await;
    let [alice] = server.users(["alice"]).await;

    let reply = alice.put(DEHYDRATED, device(&alice, &alice.device_id)).await;

    assert_eq!(reply.refusal(), (400, "M_INVALID_PARAM".into()));
}
