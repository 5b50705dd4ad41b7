//! Keys by which users vouch for their devices and for each other.

use serde_json::{Value, json};

use crate::{
    fixture::{Client, TestServer},
    key_ring::{Identity, Key, cross_signing_key, publishes_device, query},
};

const UPLOAD: &str = "/_matrix/client/v3/keys/device_signing/upload";
const SIGNATURES: &str = "/_matrix/client/v3/keys/signatures/upload";

fn key_id(key: &Key) -> String {
    format!("ed25519:{}", key.public)
}

/// Upload one signed key; returns the answer.
async fn adds_signature(client: &Client, owner: &str, target: &str, signed: &Value) -> Value {
    client.post(SIGNATURES, json!({ owner: { target: signed } })).await.ok()
}

#[tokio::test]
async fn the_first_identity_needs_no_proof_and_is_shown_to_others_but_for_the_user_signing_key() {
    let server = TestServer::start().await;
    let [alice, bob] = server.users(["alice", "bob"]).await;

    let identity = Identity::published_by(&alice).await;

    let body = identity.body(&alice);
    let (own, others) = (query(&alice, &alice.user_id).await, query(&bob, &alice.user_id).await);
    for shown in [&own, &others] {
        assert_eq!(shown["master_keys"][&alice.user_id], body["master_key"]);
        assert_eq!(shown["self_signing_keys"][&alice.user_id], body["self_signing_key"]);
    }
    assert_eq!(own["user_signing_keys"][&alice.user_id], body["user_signing_key"]);
    assert_eq!(others.get("user_signing_keys"), None);
}

#[tokio::test]
async fn the_same_identity_again_needs_no_proof() {
    let server = TestServer::start().await;
    let [alice] = server.users(["alice"]).await;
    let identity = Identity::published_by(&alice).await;

    assert_eq!(alice.post(UPLOAD, identity.body(&alice)).await.status(), 200);
}

#[tokio::test]
async fn replacing_the_master_key_needs_a_proof_of_identity() {
    let server = TestServer::start().await;
    let [alice] = server.users(["alice"]).await;
    let first = Identity::published_by(&alice).await;
    let second = Identity::new();

    let refused = alice.post(UPLOAD, second.body(&alice)).await;
    assert_eq!(refused.status(), 401);
    assert!(refused.json()["flows"].is_array());
    let shown = query(&alice, &alice.user_id).await;
    assert_eq!(shown["master_keys"][&alice.user_id], first.body(&alice)["master_key"]);

    let mut body = second.body(&alice);
    body["auth"] = alice.password_auth();
    body["auth"]["session"] = refused.json()["session"].clone();
    alice.post(UPLOAD, body).await.ok();
    let shown = query(&alice, &alice.user_id).await;
    assert_eq!(shown["master_keys"][&alice.user_id], second.body(&alice)["master_key"]);
}

#[tokio::test]
async fn adding_a_key_to_an_identity_needs_a_proof_of_identity() {
    let server = TestServer::start().await;
    let [alice] = server.users(["alice"]).await;
    let identity = Identity::new();
    let whole = identity.body(&alice);
    alice.post(UPLOAD, json!({ "master_key": whole["master_key"] })).await.ok();

    let mut body = json!({ "self_signing_key": whole["self_signing_key"] });
    let refused = alice.post(UPLOAD, body.clone()).await;
    body["auth"] = alice.password_auth();
    body["auth"]["session"] = refused.json()["session"].clone();
    let first = alice.post(UPLOAD, body.clone()).await;
    let again = alice.post(UPLOAD, body).await;

    assert_eq!([refused.status(), first.status(), again.status()], [401, 200, 200]);
}

#[tokio::test]
async fn a_new_master_key_ends_the_keys_that_the_old_one_signed() {
    let server = TestServer::start().await;
    let [alice] = server.users(["alice"]).await;
    Identity::published_by(&alice).await;
    let second = Identity::new();

    let body = json!({ "master_key": second.body(&alice)["master_key"], "auth": alice.password_auth() });
    alice.post(UPLOAD, body).await.ok();

    let shown = query(&alice, &alice.user_id).await;
    assert_eq!((shown.get("self_signing_keys"), shown.get("user_signing_keys")), (None, None));
}

#[tokio::test]
async fn keys_that_the_master_key_did_not_sign_are_refused() {
    let server = TestServer::start().await;
    let [alice] = server.users(["alice"]).await;
    let (identity, forger) = (Identity::new(), Identity::new());
    let mut body = identity.body(&alice);
    body["self_signing_key"] = forger.body(&alice)["self_signing_key"].clone();

    assert_eq!(alice.post(UPLOAD, body).await.refusal(), (400, "M_INVALID_SIGNATURE".into()));
    assert_eq!(query(&alice, &alice.user_id).await.get("master_keys"), None);
}

#[tokio::test]
async fn a_key_without_any_master_key_is_refused() {
    let server = TestServer::start().await;
    let [alice] = server.users(["alice"]).await;

    let body = json!({ "self_signing_key": Identity::new().body(&alice)["self_signing_key"] });

    assert_eq!(alice.post(UPLOAD, body).await.refusal(), (400, "M_MISSING_PARAM".into()));
}

#[tokio::test]
async fn keys_of_another_user_or_of_another_usage_are_refused() {
    let server = TestServer::start().await;
    let [alice, bob] = server.users(["alice", "bob"]).await;
    let identity = Identity::new();

    let bobs = json!({ "master_key": identity.body(&bob)["master_key"] });
    let misused = json!({ "master_key": cross_signing_key(&alice, "self_signing", &identity.master) });

    for body in [bobs, misused] {
        assert_eq!(alice.post(UPLOAD, body).await.refusal(), (400, "M_INVALID_PARAM".into()));
    }
}

#[tokio::test]
async fn a_key_named_like_a_device_is_refused() {
    let server = TestServer::start().await;
    let [alice] = server.users(["alice"]).await;
    let identity = Identity::new();
    let login = json!({
        "type": "m.login.password",
        "identifier": { "type": "m.id.user", "user": alice.user_id },
        "password": crate::fixture::PASSWORD,
        "device_id": identity.master.public,
    });
    server.anonymous().post("/_matrix/client/v3/login", login).await.ok();

    assert_eq!(alice.post(UPLOAD, identity.body(&alice)).await.refusal(), (403, "M_FORBIDDEN".into()));
}

#[tokio::test]
async fn a_users_signature_on_their_device_is_shown_to_everybody() {
    let server = TestServer::start().await;
    let [alice, bob] = server.users(["alice", "bob"]).await;
    let (_, device) = publishes_device(&alice).await;
    let identity = Identity::published_by(&alice).await;
    let mut unsigned = device.clone();
    unsigned.as_object_mut().unwrap().remove("signatures");

    let signed = identity.self_signing.signs(&alice.user_id, &unsigned);
    assert_eq!(adds_signature(&alice, &alice.user_id, &alice.device_id, &signed).await, json!({}));

    let shown = &query(&bob, &alice.user_id).await["device_keys"][&alice.user_id][&alice.device_id]["signatures"];
    let by_user = &signed["signatures"][&alice.user_id];
    let id = key_id(&identity.self_signing);
    assert_eq!(shown[&alice.user_id][&id], by_user[&id]);
    // The device's own signature is still there.
    let own = format!("ed25519:{}", alice.device_id);
    assert_eq!(shown[&alice.user_id][&own], device["signatures"][&alice.user_id][&own]);
}

#[tokio::test]
async fn a_devices_signature_on_the_master_key_is_shown_to_everybody() {
    let server = TestServer::start().await;
    let [alice, bob] = server.users(["alice", "bob"]).await;
    let (device_key, _) = publishes_device(&alice).await;
    let identity = Identity::published_by(&alice).await;

    let signed = device_key.signs(&alice.user_id, &identity.body(&alice)["master_key"]);
    let target = &identity.master.public;
    assert_eq!(adds_signature(&alice, &alice.user_id, target, &signed).await, json!({}));

    let shown = &query(&bob, &alice.user_id).await["master_keys"][&alice.user_id];
    assert_eq!(shown["signatures"], signed["signatures"]);
}

#[tokio::test]
async fn a_signature_on_somebody_else_is_shown_to_the_signer_alone() {
    let server = TestServer::start().await;
    let [alice, bob, carol] = server.users(["alice", "bob", "carol"]).await;
    let alices = Identity::published_by(&alice).await;
    let bobs = Identity::published_by(&bob).await;
    let before = alice.sync_token().await;
    let bob_before = bob.sync_token().await;

    let signed = alices.user_signing.signs(&alice.user_id, &bobs.body(&bob)["master_key"]);
    assert_eq!(adds_signature(&alice, &bob.user_id, &bobs.master.public, &signed).await, json!({}));

    let shown = query(&alice, &bob.user_id).await;
    assert_eq!(shown["master_keys"][&bob.user_id]["signatures"], signed["signatures"]);
    for other in [&bob, &carol] {
        let shown = query(other, &bob.user_id).await;
        assert_eq!(shown["master_keys"][&bob.user_id].get("signatures"), None);
    }
    // The signer's devices are told, though no room is shared; the signed user is not.
    let after = alice.sync_token().await;
    let changed = |from: String, to: String| format!("/_matrix/client/v3/keys/changes?from={from}&to={to}");
    assert_eq!(alice.get(&changed(before, after.clone())).await.ok()["changed"], json!([bob.user_id]));
    assert_eq!(bob.get(&changed(bob_before, after)).await.ok()["changed"], json!([]));
}

#[tokio::test]
async fn a_false_signature_is_reported_and_not_kept() {
    let server = TestServer::start().await;
    let [alice] = server.users(["alice"]).await;
    let (_, device) = publishes_device(&alice).await;
    let identity = Identity::published_by(&alice).await;
    let id = key_id(&identity.self_signing);
    let forger = Identity::new().self_signing;
    let by_forger = forger.signs(&alice.user_id, &device)["signatures"][&alice.user_id][key_id(&forger)].clone();
    assert!(by_forger.is_string());
    let mut forged = device.clone();
    forged["signatures"][&alice.user_id][&id] = by_forger;
    let mut changed = device.clone();
    changed["algorithms"] = json!(["m.none"]);
    let changed = identity.self_signing.signs(&alice.user_id, &changed);

    let forged = adds_signature(&alice, &alice.user_id, &alice.device_id, &forged).await;
    let changed = adds_signature(&alice, &alice.user_id, &alice.device_id, &changed).await;
    let unknown = adds_signature(&alice, &alice.user_id, "NODEVICE", &device).await;

    let code = |answer: &Value, target: &str| answer["failures"][&alice.user_id][target]["errcode"].clone();
    assert_eq!(code(&forged, &alice.device_id), "M_INVALID_SIGNATURE");
    assert_eq!(code(&changed, &alice.device_id), "M_INVALID_PARAM");
    assert_eq!(code(&unknown, "NODEVICE"), "M_NOT_FOUND");
    let shown = &query(&alice, &alice.user_id).await["device_keys"][&alice.user_id][&alice.device_id];
    assert_eq!(shown["signatures"][&alice.user_id].get(&id), None);
}
