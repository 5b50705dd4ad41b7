//! Messages from device to device.

use serde_json::{Value, json};

use crate::fixture::{Client, TestServer};

async fn sends(from: &Client, txn: &str, messages: Value) -> (u16, String) {
    let path = format!("/_matrix/client/v3/sendToDevice/my.type/{txn}");
    let reply = from.put(&path, json!({ "messages": messages })).await;
    (reply.status(), reply.errcode())
}

/// One sync: (its token, what came to the device).
async fn receives(client: &Client, since: Option<&str>) -> (String, Vec<Value>) {
    let query = since.map(|since| format!("?since={since}")).unwrap_or_default();
    let body = client.get(&format!("/_matrix/client/v3/sync{query}")).await.ok();
    let events = body["to_device"]["events"].as_array().cloned().unwrap_or_default();
    (body["next_batch"].as_str().unwrap().to_owned(), events)
}

#[tokio::test]
async fn a_message_reaches_the_device_it_is_for_and_no_other() {
    let server = TestServer::start().await;
    let [alice, bob] = server.users(["alice", "bob"]).await;
    let bobs_other = bob.another_device().await;

    let content = json!({ "my_key": "my_value" });
    assert_eq!(sends(&alice, "1", json!({ &bob.user_id: { &bob.device_id: content } })).await.0, 200);

    let event = json!({ "sender": alice.user_id, "type": "my.type", "content": content });
    assert_eq!(receives(&bob, None).await.1, [event]);
    assert_eq!(receives(&bobs_other, None).await.1, [] as [Value; 0]);
}

#[tokio::test]
async fn a_message_to_all_devices_reaches_each_once() {
    let server = TestServer::start().await;
    let [alice, bob] = server.users(["alice", "bob"]).await;
    let bobs_other = bob.another_device().await;

    sends(&alice, "1", json!({ &bob.user_id: { "*": { "n": 1 } } })).await;

    for device in [&bob, &bobs_other] {
        let events = receives(device, None).await.1;
        assert_eq!(events.iter().map(|event| &event["content"]["n"]).collect::<Vec<_>>(), [1]);
    }
}

#[tokio::test]
async fn a_repeated_transaction_sends_nothing_and_another_device_may_use_its_id() {
    let server = TestServer::start().await;
    let [alice, bob] = server.users(["alice", "bob"]).await;
    let alices_other = alice.another_device().await;
    let messages = json!({ &bob.user_id: { &bob.device_id: {} } });

    for from in [&alice, &alice, &alices_other] {
        assert_eq!(sends(from, "same", messages.clone()).await.0, 200);
    }

    assert_eq!(receives(&bob, None).await.1.len(), 2);
}

#[tokio::test]
async fn messages_to_devices_that_do_not_exist_are_passed_over() {
    let server = TestServer::start().await;
    let [alice, bob] = server.users(["alice", "bob"]).await;

    let messages = json!({
        &bob.user_id: { "NODEVICE": {}, &bob.device_id: { "n": 1 } },
        "@nobody:example.org": { "*": {} },
        "@carol:elsewhere.example": { "*": {} },
    });
    assert_eq!(sends(&alice, "1", messages).await.0, 200);

    assert_eq!(receives(&bob, None).await.1.len(), 1);
}

#[tokio::test]
async fn a_message_too_large_is_refused_and_nothing_is_sent() {
    let server = TestServer::start().await;
    let [alice, bob] = server.users(["alice", "bob"]).await;
    let bobs_other = bob.another_device().await;

    let large = json!({ "text": "x".repeat(70_000) });
    let messages = json!({ &bob.user_id: { &bob.device_id: {}, &bobs_other.device_id: large } });

    assert_eq!(sends(&alice, "1", messages).await, (413, "M_TOO_LARGE".into()));
    assert!(receives(&bob, None).await.1.is_empty());
}

#[tokio::test]
async fn a_device_receives_in_order_and_until_it_acknowledges() {
    let server = TestServer::start().await;
    let [alice, bob] = server.users(["alice", "bob"]).await;
    let start = receives(&bob, None).await.0;
    for n in 0..3 {
        sends(&alice, &format!("t{n}"), json!({ &bob.user_id: { &bob.device_id: { "n": n } } })).await;
    }

    let (next, first) = receives(&bob, Some(&start)).await;
    let (_, again) = receives(&bob, Some(&start)).await;
    sends(&alice, "t3", json!({ &bob.user_id: { &bob.device_id: { "n": 3 } } })).await;
    let (_, after) = receives(&bob, Some(&next)).await;
    let (_, from_the_start) = receives(&bob, None).await;

    let numbers = |events: &[Value]| events.iter().map(|e| e["content"]["n"].as_i64().unwrap()).collect::<Vec<_>>();
    assert_eq!((numbers(&first), numbers(&again)), (vec![0, 1, 2], vec![0, 1, 2]));
    assert_eq!((numbers(&after), numbers(&from_the_start)), (vec![3], vec![3]));
}

#[tokio::test]
async fn a_long_queue_is_delivered_a_hundred_at_a_time_and_none_is_lost() {
    let server = TestServer::start().await;
    let [alice, bob] = server.users(["alice", "bob"]).await;
    for n in 0..230 {
        sends(&alice, &format!("t{n}"), json!({ &bob.user_id: { &bob.device_id: { "n": n } } })).await;
    }

    let (mut token, mut events) = receives(&bob, None).await;
    let mut sizes = vec![events.len()];
    while sizes.last() != Some(&0) && sizes.len() < 10 {
        let (next, more) = receives(&bob, Some(&token)).await;
        token = next;
        sizes.push(more.len());
        events.extend(more);
    }

    assert_eq!(sizes, [100, 100, 30, 0]);
    let numbers: Vec<_> = events.iter().map(|event| event["content"]["n"].as_i64().unwrap()).collect();
    assert_eq!(numbers, (0..230).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_deleted_device_leaves_no_messages_to_one_of_the_same_name() {
    let server = TestServer::start().await;
    let [alice, bob] = server.users(["alice", "bob"]).await;
    let bobs_other = bob.another_device().await;
    sends(&alice, "1", json!({ &bob.user_id: { &bobs_other.device_id: {} } })).await;

    bobs_other.post("/_matrix/client/v3/logout", json!({})).await.ok();
    let login = json!({
        "type": "m.login.password",
        "identifier": { "type": "m.id.user", "user": bob.user_id },
        "password": crate::fixture::PASSWORD,
        "device_id": bobs_other.device_id,
    });
    let again = server.anonymous().post("/_matrix/client/v3/login", login).await.ok();
    let again = bob.with_session(&again);

    assert!(receives(&again, None).await.1.is_empty());
}
