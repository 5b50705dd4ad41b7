//! Identity keys of devices.

use serde_json::json;

use crate::{
    fixture::TestServer,
    key_ring::{Key, device_keys, publishes_device, query},
};

const UPLOAD: &str = "/_matrix/client/v3/keys/upload";

#[tokio::test]
async fn published_device_keys_are_shown_to_others_as_they_were_published() {
    let server = TestServer::start().await;
    let [alice, bob] = server.users(["alice", "bob"]).await;

    let (_, keys) = publishes_device(&alice).await;

    let shown = &query(&bob, &alice.user_id).await["device_keys"][&alice.user_id][&alice.device_id];
    for field in ["user_id", "device_id", "algorithms", "keys", "signatures"] {
        assert_eq!(shown[field], keys[field], "{field}");
    }
}

#[tokio::test]
async fn a_device_is_shown_with_the_name_its_user_gave_it() {
    let server = TestServer::start().await;
    let [alice, bob] = server.users(["alice", "bob"]).await;
    publishes_device(&alice).await;

    let path = format!("/_matrix/client/v3/devices/{}", alice.device_id);
    alice.put(&path, json!({ "display_name": "Kitchen" })).await.ok();

    let shown = &query(&bob, &alice.user_id).await["device_keys"][&alice.user_id][&alice.device_id];
    assert_eq!(shown["unsigned"], json!({ "device_display_name": "Kitchen" }));
}

#[tokio::test]
async fn a_local_user_without_keys_has_no_devices_but_is_in_the_answer() {
    let server = TestServer::start().await;
    let [alice, bob] = server.users(["alice", "bob"]).await;

    assert_eq!(query(&alice, &bob.user_id).await["device_keys"][&bob.user_id], json!({}));
}

#[tokio::test]
async fn only_the_devices_asked_for_are_shown() {
    let server = TestServer::start().await;
    let [alice] = server.users(["alice"]).await;
    let other = alice.another_device().await;
    publishes_device(&alice).await;
    publishes_device(&other).await;

    let body = json!({ "device_keys": { &alice.user_id: [other.device_id] } });
    let answer = alice.post("/_matrix/client/v3/keys/query", body).await.ok();

    let devices = answer["device_keys"][&alice.user_id].as_object().unwrap();
    assert_eq!(devices.keys().collect::<Vec<_>>(), [&other.device_id]);
}

#[tokio::test]
async fn device_keys_without_the_required_fields_are_refused() {
    let server = TestServer::start().await;
    let [bob] = server.users(["bob"]).await;

    let body = json!({ "device_keys": { "user_id": bob.user_id, "device_id": bob.device_id } });
    assert_eq!(bob.post(UPLOAD, body).await.refusal(), (400, "M_BAD_JSON".into()));
}

#[tokio::test]
async fn device_keys_of_another_device_or_user_are_refused() {
    let server = TestServer::start().await;
    let [alice, bob] = server.users(["alice", "bob"]).await;
    let alices_other = alice.another_device().await;
    let mut keys = device_keys(&alice, &Key::named(&alice.device_id));
    keys["signatures"] = json!({});

    for other in [&bob, &alices_other] {
        let reply = other.post(UPLOAD, json!({ "device_keys": keys })).await;
        assert_eq!(reply.refusal(), (400, "M_INVALID_PARAM".into()));
    }
    assert_eq!(query(&bob, &alice.user_id).await["device_keys"][&alice.user_id], json!({}));
}

#[tokio::test]
async fn device_keys_with_a_false_signature_of_their_own_are_refused() {
    let server = TestServer::start().await;
    let [alice] = server.users(["alice"]).await;
    let (published, forger) = (Key::named(&alice.device_id), Key::named(&alice.device_id));
    let keys = forger.signs(&alice.user_id, &device_keys(&alice, &published));

    let reply = alice.post(UPLOAD, json!({ "device_keys": keys })).await;

    assert_eq!(reply.refusal(), (400, "M_INVALID_SIGNATURE".into()));
}

#[tokio::test]
async fn devices_to_query_must_be_a_list() {
    let server = TestServer::start().await;
    let [alice] = server.users(["alice"]).await;

    let body = json!({ "device_keys": { &alice.user_id: { "DEVICE": true } } });
    let reply = alice.post("/_matrix/client/v3/keys/query", body).await;

    assert_eq!(reply.refusal(), (400, "M_BAD_JSON".into()));
}

#[tokio::test]
async fn a_deleted_device_takes_its_keys_with_it() {
    let server = TestServer::start().await;
    let [alice] = server.users(["alice"]).await;
    let other = alice.another_device().await;
    publishes_device(&other).await;
    let before = alice.sync_token().await;

    let path = format!("/_matrix/client/v3/devices/{}", other.device_id);
    alice.delete_with(&path, json!({ "auth": alice.password_auth() })).await.ok();

    assert_eq!(query(&alice, &alice.user_id).await["device_keys"][&alice.user_id], json!({}));
    let after = alice.sync_token().await;
    let path = format!("/_matrix/client/v3/keys/changes?from={before}&to={after}");
    assert_eq!(alice.get(&path).await.ok()["changed"], json!([alice.user_id]));
}

#[tokio::test]
async fn an_ended_account_has_no_keys() {
    let server = TestServer::start().await;
    let [alice, bob] = server.users(["alice", "bob"]).await;
    publishes_device(&alice).await;
    crate::key_ring::Identity::published_by(&alice).await;

    let body = json!({ "auth": alice.password_auth() });
    alice.post("/_matrix/client/v3/account/deactivate", body).await.ok();

    let shown = query(&bob, &alice.user_id).await;
    assert_eq!(shown["device_keys"][&alice.user_id], json!({}));
    assert_eq!(shown.get("master_keys"), None);
}

#[tokio::test]
async fn publishing_the_same_keys_again_is_no_change() {
    let server = TestServer::start().await;
    let [alice] = server.users(["alice"]).await;
    let (_, keys) = publishes_device(&alice).await;
    let before = alice.sync_token().await;

    alice.post(UPLOAD, json!({ "device_keys": keys })).await.ok();

    let after = alice.sync_token().await;
    let path = format!("/_matrix/client/v3/keys/changes?from={before}&to={after}");
    assert_eq!(alice.get(&path).await.ok()["changed"], json!([]));
}

#[tokio::test]
async fn changes_are_asked_for_with_tokens_of_a_sync() {
    let server = TestServer::start().await;
    let [alice] = server.users(["alice"]).await;

    let reply = alice.get("/_matrix/client/v3/keys/changes?from=yesterday&to=s1").await;

    assert_eq!(reply.refusal(), (400, "M_INVALID_PARAM".into()));
}
