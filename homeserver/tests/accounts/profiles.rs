//! Profiles.

use serde_json::{Value, json};

use crate::fixture::{Client, TestServer};

fn path(client: &Client, field: &str) -> String {
    format!("/_matrix/client/v3/profile/{}/{field}", client.user_id)
}

fn whole(client: &Client) -> String {
    format!("/_matrix/client/v3/profile/{}", client.user_id)
}

#[tokio::test]
async fn everybody_sees_the_name_and_avatar_a_user_gives_themselves() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;

    assert_eq!(server.anonymous().get(&whole(&alice)).await.ok(), json!({ "displayname": "alice" }));
    alice.put(&path(&alice, "displayname"), json!({ "displayname": "my_display_name" })).await.ok();
    alice.put(&path(&alice, "avatar_url"), json!({ "avatar_url": "mxc://example.com/SEsf" })).await.ok();

    let nobody = server.anonymous();
    let name = nobody.get(&path(&alice, "displayname")).await.ok();
    assert_eq!(name, json!({ "displayname": "my_display_name" }));
    let avatar = nobody.get(&path(&alice, "avatar_url")).await.ok();
    assert_eq!(avatar, json!({ "avatar_url": "mxc://example.com/SEsf" }));
}

#[tokio::test]
async fn a_name_can_be_taken_away_in_the_three_ways_clients_know() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let path = path(&alice, "displayname");

    for unset in [json!({ "displayname": "" }), json!({ "displayname": null }), json!({})] {
        alice.put(&path, json!({ "displayname": "Alice" })).await.ok();
        alice.put(&path, unset).await.ok();
        assert_eq!(alice.get(&path).await.refusal(), (404, "M_NOT_FOUND".to_owned()));
    }
    alice.put(&path, json!({ "displayname": "Alice" })).await.ok();
    alice.delete(&path).await.ok();
    assert_eq!(alice.get(&whole(&alice)).await.ok(), json!({}));
}

#[tokio::test]
async fn a_field_of_ones_own_holds_any_json() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let value = json!({ "nested": [1, "two", null] });

    alice.put(&path(&alice, "org.example.field"), json!({ "org.example.field": value })).await.ok();
    alice.put(&path(&alice, "m.tz"), json!({ "m.tz": "Europe/Berlin" })).await.ok();

    let all = server.anonymous().get(&whole(&alice)).await.ok();
    assert_eq!(all, json!({ "displayname": "alice", "org.example.field": value, "m.tz": "Europe/Berlin" }));
    alice.delete(&path(&alice, "org.example.field")).await.ok();
    assert_eq!(alice.get(&path(&alice, "org.example.field")).await.status(), 404);
}

#[tokio::test]
async fn nobody_changes_anothers_profile() {
    let server = TestServer::start().await;
    let [alice, bob] = server.users(["alice", "bob"]).await;
    let path = path(&alice, "displayname");

    assert_eq!(bob.put(&path, json!({ "displayname": "Bob was here" })).await.refusal().0, 403);
    assert_eq!(bob.delete(&path).await.status(), 403);
    assert_eq!(server.anonymous().put(&path, json!({ "displayname": "x" })).await.errcode(), "M_MISSING_TOKEN");
    assert_eq!(alice.get(&path).await.ok()["displayname"], "alice");
}

#[tokio::test]
async fn values_and_names_have_their_bounds() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let put = async |field: &str, value: Value| {
        let mut body = serde_json::Map::new();
        body.insert(field.to_owned(), value);
        alice.put(&path(&alice, field), body.into()).await.refusal()
    };

    assert_eq!(put("displayname", json!(7)).await, (400, "M_INVALID_PARAM".to_owned()));
    assert_eq!(put("displayname", json!("x".repeat(257))).await, (400, "M_INVALID_PARAM".to_owned()));
    assert_eq!(put("avatar_url", json!(["mxc://a/b"])).await, (400, "M_INVALID_PARAM".to_owned()));
    assert_eq!(put(&"k".repeat(256), json!(1)).await, (400, "M_KEY_TOO_LARGE".to_owned()));
    assert_eq!(put("Upper", json!(1)).await, (400, "M_INVALID_PARAM".to_owned()));
    let large = json!("x".repeat(65_000));
    assert_eq!(put("a", large).await.0, 200);
    assert_eq!(put("b", json!("x".repeat(600))).await, (400, "M_PROFILE_TOO_LARGE".to_owned()));
    assert_eq!(alice.get(&path(&alice, "b")).await.status(), 404, "what was refused was not kept");
    let elsewhere = alice.put(&path(&alice, "c"), json!({ "d": 1 })).await;
    assert_eq!(elsewhere.refusal(), (400, "M_MISSING_PARAM".to_owned()));
}

#[tokio::test]
async fn unknown_users_have_no_profile() {
    let server = TestServer::start().await;
    let nobody = server.anonymous();

    let path = "/_matrix/client/v3/profile/@nobody:example.org";
    assert_eq!(nobody.get(path).await.refusal(), (404, "M_NOT_FOUND".to_owned()));
    assert_eq!(nobody.get("/_matrix/client/v3/profile/nonsense").await.refusal(), (400, "M_INVALID_PARAM".to_owned()));
}

#[tokio::test]
async fn a_change_says_whether_rooms_must_hear_of_it() {
    let server = TestServer::start().await;
    let user = ruma::user_id!("@alice:example.org");
    server.user("alice").await;
    let nid = server.services.accounts.find(user).await.unwrap().unwrap().user_nid;
    let profiles = &server.services.profiles;

    let changed = profiles.set(nid, "displayname", json!("Alice")).await.unwrap();
    let same = profiles.set(nid, "displayname", json!("Alice")).await.unwrap();
    let other = profiles.set(nid, "m.tz", json!("UTC")).await.unwrap();

    assert!(changed.concerns_rooms && !same.concerns_rooms && !other.concerns_rooms);
    assert_eq!(other.display_name.as_deref(), Some("Alice"));
}

/// Found are those who share a room with the one who asks, or whom anybody may find; nobody looks for themselves.
#[tokio::test]
async fn somebody_who_searches_finds_others_and_not_themselves() {
    let server = TestServer::start().await;
    let [alice, bob] = server.users(["user-alice", "user-bob"]).await;
    let wish = json!({ "invite": [alice.user_id], "preset": "private_chat" });
    let room_id = bob.post("/_matrix/client/v3/createRoom", wish).await.ok()["room_id"].as_str().unwrap().to_owned();
    alice.post(&format!("/_matrix/client/v3/join/{room_id}"), json!({})).await.ok();

    let found = bob.post("/_matrix/client/v3/user_directory/search", json!({ "search_term": "@user" })).await.ok();

    let found: Vec<&Value> = found["results"].as_array().unwrap().iter().map(|user| &user["user_id"]).collect();
    assert_eq!(found, [&json!(alice.user_id)]);
}
