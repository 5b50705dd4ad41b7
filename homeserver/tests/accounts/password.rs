//! Changing the password, and ending the account.

use serde_json::{Value, json};

use crate::fixture::{Client, PASSWORD, TestServer};

const WHOAMI: &str = "/_matrix/client/v3/account/whoami";
const CHANGE: &str = "/_matrix/client/v3/account/password";
const DEACTIVATE: &str = "/_matrix/client/v3/account/deactivate";

async fn login(server: &TestServer, password: &str) -> (u16, String) {
    let body = json!({ "type": "m.login.password", "user": "alice", "password": password });
    server.anonymous().post("/_matrix/client/v3/login", body).await.refusal()
}

fn change(client: &Client, new: &str) -> Value {
    json!({ "new_password": new, "auth": client.password_auth() })
}

#[tokio::test]
async fn a_changed_password_is_the_only_one_and_logs_other_devices_out() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let other = alice.another_device().await;

    alice.post(CHANGE, change(&alice, "my_new_password")).await.ok();

    assert_eq!(login(&server, PASSWORD).await, (403, "M_FORBIDDEN".to_owned()));
    assert_eq!(login(&server, "my_new_password").await.0, 200);
    alice.get(WHOAMI).await.ok();
    assert_eq!(other.get(WHOAMI).await.status(), 401);
}

#[tokio::test]
async fn pushers_go_with_the_devices_that_set_them() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let other = alice.another_device().await;
    let pusher = |key: &str| {
        json!({
            "kind": "http", "app_id": "test", "pushkey": key, "lang": "en",
            "app_display_name": "Test", "device_display_name": "Phone",
            "data": { "url": "https://push.example.org/_matrix/push/v1/notify" },
        })
    };
    alice.post("/_matrix/client/v3/pushers/set", pusher("mine")).await.ok();
    other.post("/_matrix/client/v3/pushers/set", pusher("the other's")).await.ok();

    alice.post(CHANGE, change(&alice, "my_new_password")).await.ok();

    let left = alice.get("/_matrix/client/v3/pushers").await.ok();
    let keys: Vec<_> = left["pushers"].as_array().unwrap().iter().map(|pusher| &pusher["pushkey"]).collect();
    assert_eq!(keys, ["mine"]);
}

#[tokio::test]
async fn other_devices_may_be_kept() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let other = alice.another_device().await;
    let mut body = change(&alice, "my_new_password");
    body["logout_devices"] = false.into();

    alice.post(CHANGE, body).await.ok();

    other.get(WHOAMI).await.ok();
}

#[tokio::test]
async fn a_password_is_changed_only_by_its_owner_and_to_a_good_one() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;

    assert_eq!(alice.post(CHANGE, json!({ "new_password": "my_new_password" })).await.status(), 401);
    let anonymous = server.anonymous().post(CHANGE, change(&alice, "my_new_password")).await;
    assert_eq!(anonymous.refusal(), (401, "M_MISSING_TOKEN".to_owned()));
    assert_eq!(alice.post(CHANGE, change(&alice, "short")).await.refusal(), (400, "M_WEAK_PASSWORD".to_owned()));
    assert_eq!(alice.post(CHANGE, json!({})).await.refusal(), (400, "M_MISSING_PARAM".to_owned()));
    assert_eq!(login(&server, PASSWORD).await.0, 200);
}

#[tokio::test]
async fn a_password_kept_at_an_old_price_is_kept_at_the_new_one_after_a_login() {
    let server = TestServer::start().await;
    server.user("alice").await;
    let mut dearer = crate::fixture::settings();
    dearer.accounts.password.passes = 2;
    let server = TestServer::start_on(server.store.clone(), dearer).await;
    let kept = || async {
        let user = ruma::user_id!("@alice:example.org");
        server.services.accounts.find(user).await.unwrap().unwrap().password.unwrap()
    };

    assert!(kept().await.starts_with("$argon2id$v=19$m=64,t=1,p=1$"));
    assert_eq!(login(&server, "wrong password").await.0, 403);
    assert!(kept().await.starts_with("$argon2id$v=19$m=64,t=1,p=1$"));
    assert_eq!(login(&server, PASSWORD).await.0, 200);

    assert!(kept().await.starts_with("$argon2id$v=19$m=64,t=2,p=1$"));
    assert_eq!(login(&server, PASSWORD).await.0, 200);
}

#[tokio::test]
async fn an_ended_account_has_no_devices_no_profile_and_no_way_back() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let other = alice.another_device().await;
    let mut wrong = alice.password_auth();
    wrong["password"] = "wrong".into();

    assert_eq!(alice.post(DEACTIVATE, json!({})).await.json()["flows"][0]["stages"][0], "m.login.password");
    assert_eq!(alice.post(DEACTIVATE, json!({ "auth": wrong })).await.refusal(), (401, "M_FORBIDDEN".to_owned()));
    let body = json!({ "auth": alice.password_auth(), "erase": true });
    assert_eq!(alice.post(DEACTIVATE, body).await.ok(), json!({ "id_server_unbind_result": "success" }));

    assert_eq!(login(&server, PASSWORD).await.0, 403);
    for gone in [&alice, &other] {
        assert_eq!(gone.get(WHOAMI).await.refusal(), (401, "M_UNKNOWN_TOKEN".to_owned()));
    }
    let profile = format!("/_matrix/client/v3/profile/{}", alice.user_id);
    assert_eq!(server.anonymous().get(&profile).await.refusal(), (404, "M_NOT_FOUND".to_owned()));
    let account = server.services.accounts.find(ruma::user_id!("@alice:example.org")).await.unwrap().unwrap();
    assert!(account.is_erased && account.password.is_none());
    assert!(server.services.devices.of(account.user_nid).await.unwrap().is_empty());
}
