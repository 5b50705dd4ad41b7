//! Logging in and out.

use http::Method;
use serde_json::{Value, json};

use crate::fixture::{PASSWORD, TestServer, settings};

const LOGIN: &str = "/_matrix/client/v3/login";
const WHOAMI: &str = "/_matrix/client/v3/account/whoami";

fn by_password(user: &str, password: &str) -> Value {
    let identifier = json!({ "type": "m.id.user", "user": user });
    json!({ "type": "m.login.password", "identifier": identifier, "password": password })
}

#[tokio::test]
async fn a_registered_user_is_recognised_by_their_token() {
    let server = TestServer::start().await;
    let [alice] = server.users(["alice"]).await;

    let reply = alice.get(WHOAMI).await;

    assert_eq!(reply.ok(), json!({ "user_id": "@alice:example.org", "device_id": alice.device_id }));
}

#[tokio::test]
async fn the_ways_to_log_in_are_listed() {
    let server = TestServer::start().await;

    let flows = server.anonymous().get(LOGIN).await.ok()["flows"].clone();

    assert_eq!(
        flows,
        json!([
            { "type": "m.login.password" },
            { "type": "m.login.token", "get_login_token": true },
            { "type": "m.login.application_service" },
        ])
    );
}

#[tokio::test]
async fn a_user_is_found_by_id_localpart_capitals_and_the_old_field() {
    let server = TestServer::start().await;
    server.user("alice").await;
    let nobody = server.anonymous();

    for name in ["@alice:example.org", "alice", "@ALICE:example.org", "Alice"] {
        let session = nobody.post(LOGIN, by_password(name, PASSWORD)).await.ok();
        assert_eq!(session["user_id"], "@alice:example.org");
        assert_eq!(session["home_server"], "example.org");
        nobody.with_session(&session).get(WHOAMI).await.ok();
    }
    let old = json!({ "type": "m.login.password", "user": "alice", "password": PASSWORD });
    assert_eq!(nobody.post(LOGIN, old).await.ok()["user_id"], "@alice:example.org");
}

#[tokio::test]
async fn wrong_password_unknown_user_and_foreign_user_look_the_same() {
    let server = TestServer::start().await;
    server.user("alice").await;
    let nobody = server.anonymous();

    let wrong = nobody.post(LOGIN, by_password("alice", "wrong password")).await;
    for name in ["nobody", "@alice:example.com", "@", "", "a:b:c", "@alice:example.org\0"] {
        let reply = nobody.post(LOGIN, by_password(name, PASSWORD)).await;
        assert_eq!(reply.refusal(), (403, "M_FORBIDDEN".to_owned()), "{name:?}");
        assert_eq!(reply.json(), wrong.json(), "{name:?}");
    }
}

#[tokio::test]
async fn a_login_that_makes_no_sense_is_refused_with_its_code() {
    let server = TestServer::start().await;
    let nobody = server.anonymous();
    let refused = async |body: Value| nobody.post(LOGIN, body).await.refusal();

    assert_eq!(refused(json!({})).await, (400, "M_MISSING_PARAM".to_owned()));
    assert_eq!(refused(json!({ "type": 7 })).await, (400, "M_BAD_JSON".to_owned()));
    assert_eq!(refused(json!({ "type": "m.login.unheard_of" })).await, (400, "M_UNKNOWN".to_owned()));
    let nameless = json!({ "type": "m.login.password", "password": PASSWORD });
    assert_eq!(refused(nameless).await, (400, "M_MISSING_PARAM".to_owned()));
    let no_password = json!({ "type": "m.login.password", "user": "alice" });
    assert_eq!(refused(no_password).await, (400, "M_MISSING_PARAM".to_owned()));
    let by_mail = json!({ "type": "m.id.thirdparty", "medium": "email", "address": "a@b" });
    let by_mail = json!({ "type": "m.login.password", "identifier": by_mail, "password": PASSWORD });
    assert_eq!(refused(by_mail).await, (403, "M_FORBIDDEN".to_owned()));
    let mut long_device = by_password("alice", PASSWORD);
    server.user("alice").await;
    long_device["device_id"] = "x".repeat(256).into();
    assert_eq!(refused(long_device).await, (400, "M_INVALID_PARAM".to_owned()));
    assert_eq!(nobody.request(Method::POST, LOGIN, Some(b"nonsense".to_vec())).await.errcode(), "M_NOT_JSON");
}

#[tokio::test]
async fn an_old_token_in_the_header_does_not_stand_in_the_way_of_a_login() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await.with_token("vc_forgotten");

    alice.post(LOGIN, by_password("alice", PASSWORD)).await.ok();
}

#[tokio::test]
async fn logging_in_on_a_device_ends_what_the_device_had() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let mut body = by_password("alice", PASSWORD);
    body["device_id"] = alice.device_id.clone().into();
    body["initial_device_display_name"] = "ignored, the device is known".into();

    let again = alice.with_session(&alice.post(LOGIN, body).await.ok());

    assert_eq!(again.device_id, alice.device_id);
    assert_eq!(alice.get(WHOAMI).await.refusal(), (401, "M_UNKNOWN_TOKEN".to_owned()));
    again.get(WHOAMI).await.ok();
}

#[tokio::test]
async fn logging_out_ends_one_device_and_logging_out_everywhere_all() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let [second, third] = [alice.another_device().await, alice.another_device().await];

    second.post("/_matrix/client/v3/logout", json!({})).await.ok();
    assert_eq!(second.get(WHOAMI).await.refusal(), (401, "M_UNKNOWN_TOKEN".to_owned()));
    let devices = alice.get("/_matrix/client/v3/devices").await.ok();
    assert_eq!(devices["devices"].as_array().unwrap().len(), 2, "the device went with its token");
    third.post("/_matrix/client/v3/logout/all", json!({})).await.ok();

    assert_eq!(alice.get(WHOAMI).await.status(), 401);
    assert_eq!(third.get(WHOAMI).await.status(), 401);
}

#[tokio::test]
async fn logging_out_needs_a_token() {
    let server = TestServer::start().await;

    let reply = server.anonymous().post("/_matrix/client/v3/logout", json!({})).await;

    assert_eq!(reply.refusal(), (401, "M_MISSING_TOKEN".to_owned()));
}

#[tokio::test]
async fn a_device_logs_another_one_in_once_and_soon() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let path = "/_matrix/client/v1/login/get_token";
    let with = |token: &Value| json!({ "type": "m.login.token", "token": token });
    let auth = json!({ "auth": alice.password_auth() });

    assert_eq!(alice.post(path, json!({})).await.status(), 401);
    let given = alice.post(path, auth.clone()).await.ok();
    let nobody = server.anonymous();
    assert_eq!(nobody.post(LOGIN, with(&given["login_token"])).await.ok()["user_id"], alice.user_id);
    assert_eq!(nobody.post(LOGIN, with(&given["login_token"])).await.refusal(), (403, "M_FORBIDDEN".to_owned()));

    let late = alice.post(path, auth).await.ok();
    server.clock.advance(std::time::Duration::from_millis(late["expires_in_ms"].as_u64().unwrap()));
    assert_eq!(nobody.post(LOGIN, with(&late["login_token"])).await.status(), 403);
}

#[tokio::test]
async fn capabilities_name_the_room_version_that_new_rooms_get() {
    let mut settings = settings();
    settings.rooms.default_version = ruma::RoomVersionId::V11;
    let server = TestServer::start_with(settings).await;
    let alice = server.user("alice").await;

    let capabilities = alice.get("/_matrix/client/v3/capabilities").await.ok()["capabilities"].clone();

    assert_eq!(capabilities["m.room_versions"]["default"], "11");
}

#[tokio::test]
async fn capabilities_are_for_users_and_name_what_clients_look_for() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let path = "/_matrix/client/v3/capabilities";

    let capabilities = alice.get(path).await.ok()["capabilities"].clone();

    assert_eq!(server.anonymous().get(path).await.refusal(), (401, "M_MISSING_TOKEN".to_owned()));
    assert_eq!(capabilities["m.change_password"], json!({ "enabled": true }));
    assert_eq!(capabilities["m.room_versions"]["default"], "12");
    assert_eq!(capabilities["m.room_versions"]["available"]["11"], "stable");
    assert_eq!(capabilities["m.get_login_token"], json!({ "enabled": true }));
    assert_eq!(capabilities.get("m.account_moderation"), None);
}
