//! User-interactive authentication.

use std::time::Duration;

use serde_json::{Value, json};

use crate::fixture::{Client, PASSWORD, TestServer};

fn device(client: &Client) -> String {
    format!("/_matrix/client/v3/devices/{}", client.device_id)
}

#[tokio::test]
async fn the_first_answer_says_what_to_do_and_a_wrong_password_says_so_inside_it() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let second = alice.another_device().await;

    let asked = alice.delete(&device(&second)).await;
    assert_eq!(asked.status(), 401);
    assert_eq!(asked.json()["flows"], json!([{ "stages": ["m.login.password"] }]));
    assert_eq!(asked.json()["params"], json!({}));
    assert_eq!(asked.json().get("errcode"), None);
    let mut auth = alice.password_auth();
    auth["password"] = "wrong".into();
    auth["session"] = asked.json()["session"].clone();
    let refused = alice.delete_with(&device(&second), json!({ "auth": auth })).await;

    assert_eq!(refused.refusal(), (401, "M_FORBIDDEN".to_owned()));
    assert_eq!(refused.json()["session"], asked.json()["session"]);
    assert!(refused.json()["flows"].is_array() && refused.json()["error"].is_string());
}

#[tokio::test]
async fn another_users_password_proves_nothing() {
    let server = TestServer::start().await;
    let [alice, bob] = server.users(["alice", "bob"]).await;
    let second = alice.another_device().await;

    let reply = alice.delete_with(&device(&second), json!({ "auth": bob.password_auth() })).await;

    assert_eq!(reply.status(), 403);
    alice.get(&device(&second)).await.ok();
}

#[tokio::test]
async fn a_session_is_for_one_operation_of_one_user() {
    let server = TestServer::start().await;
    let [alice, bob] = server.users(["alice", "bob"]).await;
    let [second, third] = [alice.another_device().await, alice.another_device().await];
    let session = alice.delete(&device(&second)).await.json()["session"].clone();
    let with_session = |client: &Client| {
        let mut auth = client.password_auth();
        auth["session"] = session.clone();
        json!({ "auth": auth })
    };

    assert_eq!(alice.delete_with(&device(&third), with_session(&alice)).await.status(), 403);
    assert_eq!(bob.delete_with(&device(&second), with_session(&bob)).await.status(), 403);
    alice.delete_with(&device(&second), with_session(&alice)).await.ok();
    let again = alice.delete_with(&device(&second), json!({ "auth": { "session": session } })).await;
    assert_eq!(again.status(), 401, "it was used up");
}

#[tokio::test]
async fn a_session_expires() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let second = alice.another_device().await;
    let session = alice.delete(&device(&second)).await.json()["session"].clone();

    server.clock.advance(Duration::from_secs(31 * 60));
    let mut auth = alice.password_auth();
    auth["session"] = session.clone();
    let reply = alice.delete_with(&device(&second), json!({ "auth": auth })).await;

    assert_eq!(reply.status(), 401);
    assert_ne!(reply.json()["session"], session);
}

#[tokio::test]
async fn old_clients_prove_themselves_with_the_user_field() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let second = alice.another_device().await;
    let auth = json!({ "type": "m.login.password", "user": "alice", "password": PASSWORD });

    let body = json!({ "devices": [second.device_id], "auth": auth });
    alice.post("/_matrix/client/v3/delete_devices", body).await.ok();

    assert_eq!(alice.get(&device(&second)).await.status(), 404);
}

#[tokio::test]
async fn stages_that_are_not_asked_for_or_not_complete_lead_nowhere() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let second = alice.another_device().await;
    let try_with = async |auth: Value| alice.delete_with(&device(&second), json!({ "auth": auth })).await.refusal();

    assert_eq!(try_with(json!({ "type": "m.login.dummy" })).await, (401, "M_UNRECOGNIZED".to_owned()));
    assert_eq!(try_with(json!({ "type": "m.login.unheard_of" })).await, (401, "M_UNRECOGNIZED".to_owned()));
    assert_eq!(try_with(json!({ "type": "m.login.password" })).await, (401, "M_MISSING_PARAM".to_owned()));
    let mut no_password = alice.password_auth();
    no_password.as_object_mut().unwrap().remove("password");
    assert_eq!(try_with(no_password).await, (401, "M_MISSING_PARAM".to_owned()));
    assert_eq!(try_with(json!({ "session": "guessed" })).await.0, 401);
    alice.get(&device(&second)).await.ok();
}
