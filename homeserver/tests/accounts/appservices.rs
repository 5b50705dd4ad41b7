//! What application services may do with accounts.

use serde_json::json;
use services::appservices::registry::Hidden;

use crate::fixture::{Client, PASSWORD, TestServer, settings};

const WHOAMI: &str = "/_matrix/client/v3/account/whoami";
const REGISTER: &str = "/_matrix/client/v3/register";

/// A server with a bridge that has `@bridge_…` for itself, and the bridge.
async fn server_with_bridge() -> (TestServer, Client) {
    let registration = json!({
        "id": "bridge", "url": null, "as_token": "as_token", "hs_token": "hs_token", "sender_localpart": "bridge",
        "namespaces": { "users": [{ "exclusive": true, "regex": "@bridge_.*" }] },
    });
    let mut settings = settings();
    settings.appservices.registry.texts = vec![Hidden(registration.to_string())];
    let server = TestServer::start_with(settings).await;
    let bridge = server.anonymous().with_token("as_token");
    (server, bridge)
}

fn register(name: &str) -> serde_json::Value {
    json!({ "type": "m.login.application_service", "username": name })
}

#[tokio::test]
async fn a_bridge_is_its_sender_and_the_users_it_registered() {
    let (_server, bridge) = server_with_bridge().await;

    assert_eq!(bridge.get(WHOAMI).await.ok(), json!({ "user_id": "@bridge:example.org" }));
    let path = format!("{WHOAMI}?user_id=@bridge_carol:example.org");
    assert_eq!(bridge.get(&path).await.refusal(), (403, "M_FORBIDDEN".to_owned()));
    let carol = bridge.post(REGISTER, register("bridge_carol")).await.ok();

    assert_eq!(bridge.get(&path).await.ok()["user_id"], carol["user_id"]);
    let device = carol["device_id"].as_str().unwrap();
    assert_eq!(bridge.get(&format!("{path}&device_id={device}")).await.ok()["device_id"], device);
    assert_eq!(bridge.get(&format!("{path}&device_id=OTHER")).await.refusal(), (400, "M_UNKNOWN_DEVICE".to_owned()));
}

#[tokio::test]
async fn a_bridge_is_nobody_else() {
    let (server, bridge) = server_with_bridge().await;
    server.user("alice").await;

    for user in ["@alice:example.org", "@bridge_x:elsewhere.example"] {
        assert_eq!(bridge.get(&format!("{WHOAMI}?user_id={user}")).await.refusal().0, 403, "{user}");
    }
    assert_eq!(bridge.get(&format!("{WHOAMI}?user_id=nonsense")).await.refusal(), (400, "M_INVALID_PARAM".to_owned()));
    assert_eq!(bridge.post(REGISTER, register("dave")).await.refusal(), (400, "M_EXCLUSIVE".to_owned()));
}

#[tokio::test]
async fn the_names_of_a_bridge_are_for_the_bridge() {
    let (server, bridge) = server_with_bridge().await;
    let nobody = server.anonymous();
    let wish = json!({ "username": "bridge_x", "password": PASSWORD, "auth": { "type": "m.login.dummy" } });

    assert_eq!(nobody.post(REGISTER, wish).await.refusal(), (400, "M_EXCLUSIVE".to_owned()));
    let path = "/_matrix/client/v3/register/available?username=bridge_x";
    assert_eq!(nobody.get(path).await.refusal(), (400, "M_EXCLUSIVE".to_owned()));
    assert_eq!(nobody.post(REGISTER, register("bridge_x")).await.refusal(), (401, "M_MISSING_TOKEN".to_owned()));
    bridge.post(REGISTER, register("bridge_x")).await.ok();
}

#[tokio::test]
async fn a_bridge_logs_its_users_in_and_no_others() {
    let (server, bridge) = server_with_bridge().await;
    server.user("alice").await;
    let mut quiet = register("bridge_carol");
    quiet["inhibit_login"] = true.into();
    bridge.post(REGISTER, quiet).await.ok();
    let login = |user: &str| json!({ "type": "m.login.application_service", "identifier": { "type": "m.id.user", "user": user } });
    let path = "/_matrix/client/v3/login";

    let session = bridge.post(path, login("bridge_carol")).await.ok();

    server.anonymous().with_session(&session).get(WHOAMI).await.ok();
    assert_eq!(bridge.post(path, login("alice")).await.refusal(), (400, "M_EXCLUSIVE".to_owned()));
    assert_eq!(bridge.post(path, login("bridge_nobody")).await.status(), 403);
    assert_eq!(server.anonymous().post(path, login("bridge_carol")).await.errcode(), "M_MISSING_TOKEN");
}
