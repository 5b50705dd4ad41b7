//! Account data, tags and filters, through the real router.

mod fixture;

use fixture::{Client, TestServer};
use serde_json::{Value, json};

const ROOM: &str = "!room:example.org";

fn path(owner: &Client, rest: &str) -> String {
    format!("/_matrix/client/v3/user/{}/{rest}", owner.user_id)
}

/// A room that nobody is in, to keep data about.
async fn with_room(server: &TestServer) {
    let mut tx = server.store.begin().await.unwrap();
    let head = storage::rooms::Head {
        nid: 1,
        room_id: ROOM.into(),
        version: "11".into(),
        head_ver: 0,
        heads: "[]".into(),
        state_nid: 0,
        depth: 0,
        notify_seq: 0,
        is_partial: false,
    };
    assert!(storage::rooms::create(&mut tx, &head).await.unwrap());
    tx.commit().await.unwrap();
}

/// The content of a type in the global account data of a sync.
fn global(sync: &Value, kind: &str) -> Option<Value> {
    let events = sync["account_data"]["events"].as_array().cloned().unwrap_or_default();
    events.into_iter().find(|event| event["type"] == kind).map(|event| event["content"].clone())
}

#[tokio::test]
async fn account_data_is_kept_replaced_and_synced() {
    let server = TestServer::start().await;
    let [alice] = server.users(["alice"]).await;
    let test_key = path(&alice, "account_data/test.key");
    let since = alice.sync_token().await;

    alice.put(&test_key, json!({ "value": "first" })).await.ok();
    assert_eq!(alice.get(&test_key).await.ok(), json!({ "value": "first" }));
    alice.put(&test_key, json!({ "value": "second" })).await.ok();
    assert_eq!(alice.get(&test_key).await.ok(), json!({ "value": "second" }));

    let sync = alice.get(&format!("/_matrix/client/v3/sync?since={since}")).await.ok();
    assert_eq!(global(&sync, "test.key"), Some(json!({ "value": "second" })));
}

#[tokio::test]
async fn account_data_of_a_room_is_not_global() {
    let server = TestServer::start().await;
    let [alice] = server.users(["alice"]).await;
    with_room(&server).await;
    let in_room = path(&alice, &format!("rooms/{ROOM}/account_data/test.key"));

    alice.put(&in_room, json!({ "value": "room" })).await.ok();

    assert_eq!(alice.get(&in_room).await.ok(), json!({ "value": "room" }));
    let global = alice.get(&path(&alice, "account_data/test.key")).await;
    assert_eq!(global.refusal(), (404, "M_NOT_FOUND".into()));
}

#[tokio::test]
async fn account_data_is_its_users_alone() {
    let server = TestServer::start().await;
    let [alice, bob] = server.users(["alice", "bob"]).await;
    let alices = path(&alice, "account_data/test.key");
    alice.put(&alices, json!({ "secret": true })).await.ok();

    assert_eq!(bob.get(&alices).await.refusal(), (403, "M_FORBIDDEN".into()));
    assert_eq!(bob.put(&alices, json!({})).await.refusal(), (403, "M_FORBIDDEN".into()));
    assert_eq!(alice.get(&alices).await.ok(), json!({ "secret": true }));
}

#[tokio::test]
async fn what_the_server_manages_cannot_be_set() {
    let server = TestServer::start().await;
    let [alice] = server.users(["alice"]).await;
    with_room(&server).await;

    for kind in ["m.fully_read", "m.push_rules"] {
        for rest in [format!("account_data/{kind}"), format!("rooms/{ROOM}/account_data/{kind}")] {
            let reply = alice.put(&path(&alice, &rest), json!({ "x": 1 })).await;
            assert_eq!(reply.refusal(), (405, "M_BAD_JSON".into()), "{rest}");
        }
    }
}

#[tokio::test]
async fn what_is_no_object_or_too_large_is_refused() {
    let server = TestServer::start().await;
    let [alice] = server.users(["alice"]).await;
    let test_key = path(&alice, "account_data/test.key");

    assert_eq!(alice.put(&test_key, json!([1])).await.refusal(), (400, "M_BAD_JSON".into()));
    let broken = alice.request(axum::http::Method::PUT, &test_key, Some(b"{".to_vec())).await;
    assert_eq!(broken.refusal(), (400, "M_NOT_JSON".into()));
    let large = json!({ "x": "x".repeat(300_000) });
    assert_eq!(alice.put(&test_key, large).await.refusal(), (413, "M_TOO_LARGE".into()));
    let unknown_room = path(&alice, "rooms/!nowhere:example.org/account_data/test.key");
    assert_eq!(alice.put(&unknown_room, json!({})).await.refusal(), (404, "M_NOT_FOUND".into()));
}

/// MSC3391: by DELETE or by an empty content.
#[tokio::test]
async fn deleted_account_data_is_synced_once_as_empty_and_then_gone() {
    let server = TestServer::start().await;
    let [alice] = server.users(["alice"]).await;
    let test_key = path(&alice, "account_data/test.key");
    let delete = test_key.replace("/v3/", "/unstable/org.matrix.msc3391/");

    for by_delete in [true, false] {
        alice.put(&test_key, json!({ "x": 1 })).await.ok();
        let since = alice.sync_token().await;
        if by_delete {
            alice.delete(&delete).await.ok();
        } else {
            alice.put(&test_key, json!({})).await.ok();
        }

        assert_eq!(alice.get(&test_key).await.refusal(), (404, "M_NOT_FOUND".into()));
        let sync = alice.get(&format!("/_matrix/client/v3/sync?since={since}")).await.ok();
        assert_eq!(global(&sync, "test.key"), Some(json!({})));
        assert_eq!(global(&alice.get("/_matrix/client/v3/sync").await.ok(), "test.key"), None);
    }
}

#[tokio::test]
async fn tags_are_put_on_a_room_and_taken_off() {
    let server = TestServer::start().await;
    let [alice] = server.users(["alice"]).await;
    with_room(&server).await;
    let tags = path(&alice, &format!("rooms/{ROOM}/tags"));
    assert_eq!(alice.get(&tags).await.ok(), json!({ "tags": {} }));

    alice.put(&format!("{tags}/m.favourite"), json!({ "order": 0.25 })).await.ok();
    alice.put(&format!("{tags}/u.work"), json!({})).await.ok();
    let both = json!({ "tags": { "m.favourite": { "order": 0.25 }, "u.work": {} } });
    assert_eq!(alice.get(&tags).await.ok(), both);
    let as_data = path(&alice, &format!("rooms/{ROOM}/account_data/m.tag"));
    assert_eq!(alice.get(&as_data).await.ok(), both);

    alice.delete(&format!("{tags}/m.favourite")).await.ok();
    assert_eq!(alice.get(&tags).await.ok(), json!({ "tags": { "u.work": {} } }));
}

#[tokio::test]
async fn a_tag_with_too_long_a_name_is_refused() {
    let server = TestServer::start().await;
    let [alice] = server.users(["alice"]).await;
    with_room(&server).await;

    let tag = path(&alice, &format!("rooms/{ROOM}/tags/{}", "x".repeat(256)));

    assert_eq!(alice.put(&tag, json!({})).await.refusal(), (400, "M_INVALID_PARAM".into()));
}

#[tokio::test]
async fn a_filter_comes_back_by_its_id_and_the_same_one_has_the_same_id() {
    let server = TestServer::start().await;
    let [alice, bob] = server.users(["alice", "bob"]).await;
    let filters = path(&alice, "filter");
    let filter = json!({ "room": { "timeline": { "limit": 10 } }, "presence": { "types": [] } });

    let first = alice.post(&filters, filter.clone()).await.ok()["filter_id"].as_str().unwrap().to_owned();
    let second = alice.post(&filters, filter.clone()).await.ok()["filter_id"].as_str().unwrap().to_owned();
    let other = alice.post(&filters, json!({})).await.ok()["filter_id"].as_str().unwrap().to_owned();

    assert_eq!(first, second);
    assert_ne!(first, other);
    assert!(!first.starts_with('{'));
    assert_eq!(alice.get(&format!("{filters}/{first}")).await.ok(), filter);
    assert_eq!(alice.get(&format!("{filters}/nosuch")).await.refusal(), (404, "M_NOT_FOUND".into()));
    assert_eq!(bob.get(&format!("{filters}/{first}")).await.refusal(), (403, "M_FORBIDDEN".into()));
}

#[tokio::test]
async fn what_is_no_filter_is_refused() {
    let server = TestServer::start().await;
    let [alice] = server.users(["alice"]).await;
    let filters = path(&alice, "filter");

    let bad =
        [json!({ "room": "all" }), json!({ "presence": { "senders": ["nobody"] } }), json!({ "event_fields": "x" })];

    for filter in bad {
        let reply = alice.post(&filters, filter.clone()).await;
        assert_eq!(reply.refusal(), (400, "M_BAD_JSON".into()), "{filter}");
    }
}
