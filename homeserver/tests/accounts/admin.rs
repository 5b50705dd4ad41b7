//! What administrators see and restrict.

use http::{Request, header};
use serde_json::json;

use crate::fixture::{PASSWORD, TestServer};

const WHOAMI: &str = "/_matrix/client/v3/account/whoami";

#[tokio::test]
async fn whois_names_devices_and_addresses_to_the_user_and_administrators() {
    let server = TestServer::start().await;
    let [alice, bob] = server.users(["alice", "bob"]).await;
    let root = server.admin("root").await;
    let request = Request::get(WHOAMI)
        .header(header::AUTHORIZATION, format!("Bearer {}", alice.token.as_ref().unwrap()))
        .header(header::USER_AGENT, "Test/1.0");
    server.clock.advance(std::time::Duration::from_secs(5));
    alice.send(request.body(axum::body::Body::empty()).unwrap()).await.ok();
    let path = format!("/_matrix/client/v3/admin/whois/{}", alice.user_id);

    let seen = root.get(&path).await.ok();

    let connection = &seen["devices"][&alice.device_id]["sessions"][0]["connections"][0];
    assert_eq!(connection["ip"], "192.0.2.1");
    assert_eq!(connection["user_agent"], "Test/1.0");
    alice.get(&path).await.ok();
    assert_eq!(bob.get(&path).await.refusal(), (403, "M_FORBIDDEN".to_owned()));
    assert_eq!(root.get("/_matrix/client/v3/admin/whois/@nobody:example.org").await.status(), 404);
}

#[tokio::test]
async fn a_locked_user_may_only_log_out_at_once_and_until_unlocked() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let root = server.admin("root").await;
    let path = format!("/_matrix/client/v1/admin/lock/{}", alice.user_id);
    alice.get(WHOAMI).await.ok();

    assert_eq!(root.put(&path, json!({ "locked": true })).await.ok(), json!({ "locked": true }));
    assert_eq!(root.get(&path).await.ok(), json!({ "locked": true }));
    let refused = alice.get(WHOAMI).await;
    assert_eq!(refused.refusal(), (401, "M_USER_LOCKED".to_owned()));
    assert_eq!(refused.json()["soft_logout"], true);
    let login = json!({ "type": "m.login.password", "user": "alice", "password": PASSWORD });
    assert_eq!(alice.post("/_matrix/client/v3/login", login).await.refusal(), (401, "M_USER_LOCKED".to_owned()));

    root.put(&path, json!({ "locked": false })).await.ok();
    alice.get(WHOAMI).await.ok();
    root.put(&path, json!({ "locked": true })).await.ok();
    alice.post("/_matrix/client/v3/logout", json!({})).await.ok();
}

#[tokio::test]
async fn a_suspension_is_known_to_whoever_asks_the_account() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let root = server.admin("root").await;
    let path = format!("/_matrix/client/v1/admin/suspend/{}", alice.user_id);

    assert_eq!(root.get(&path).await.ok(), json!({ "suspended": false }));
    root.put(&path, json!({ "suspended": true })).await.ok();

    alice.get(WHOAMI).await.ok();
    let token = alice.token.as_ref().unwrap();
    let user = server.services.accounts.authenticate(token, &Default::default()).await.unwrap();
    assert!(user.is_suspended);
}

#[tokio::test]
async fn only_administrators_restrict_and_only_local_users_who_are_none() {
    let server = TestServer::start().await;
    let [alice, bob] = server.users(["alice", "bob"]).await;
    let [root, other] = [server.admin("root").await, server.admin("other").await];
    let lock = |user: &str| format!("/_matrix/client/v1/admin/lock/{user}");
    let yes = json!({ "locked": true });

    // Who may not is told so before anybody is looked up.
    for user in [&alice.user_id, "@nobody:example.org"] {
        assert_eq!(bob.put(&lock(user), yes.clone()).await.refusal(), (403, "M_FORBIDDEN".to_owned()));
    }
    for user in [&root.user_id, &other.user_id] {
        assert_eq!(root.put(&lock(user), yes.clone()).await.refusal(), (403, "M_FORBIDDEN".to_owned()));
    }
    assert_eq!(root.put(&lock("@a:elsewhere"), yes.clone()).await.refusal(), (400, "M_INVALID_PARAM".to_owned()));
    assert_eq!(root.put(&lock("@nobody:example.org"), yes).await.refusal(), (404, "M_NOT_FOUND".to_owned()));
    let capabilities = root.get("/_matrix/client/v3/capabilities").await.ok();
    assert_eq!(capabilities["capabilities"]["m.account_moderation"], json!({ "suspend": true, "lock": true }));
}
