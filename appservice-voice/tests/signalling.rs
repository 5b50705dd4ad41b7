//! The service from outside: its real router, WebSocket clients, and a homeserver beside it.

#[path = "support/homeserver.rs"]
mod homeserver;
#[path = "support/service.rs"]
mod service;
#[path = "support/talker.rs"]
#[expect(dead_code, reason = "the media tests use more of it")]
mod talker;

use std::time::{Duration, Instant};

use appservice_voice::Settings;
use futures_util::SinkExt as _;
use homeserver::{CALL_MEMBER, Homeserver, SERVER_NAME, state_event, user_id};
use serde_json::{Value, json};
use service::{Client, HS_TOKEN, ROOM, Service, serve, serve_with, settings};
use talker::{PATIENCE, Talker};
use tokio_tungstenite::{
    connect_async,
    tungstenite::{self, Message, client::IntoClientRequest as _},
};

fn key(name: &str) -> String {
    format!("_{}_{name}-phone_m.call", user_id(name))
}

#[tokio::test]
async fn two_people_join_see_each_other_and_stand_in_the_room_state() {
    let service = Service::start().await;
    service.homeserver.voice_room(ROOM, &["alice", "bob"]);

    let (mut alice, _) = service.joins("alice").await;
    let (mut bob, bobs_id) = service.joins("bob").await;

    let joined = alice.told("user_joined").await;
    assert_eq!((&joined["participant"]["participant_id"], &joined["seq"]), (&json!(bobs_id), &json!(1)));
    service.homeserver.calling_becomes(ROOM, &[&key("alice"), &key("bob")]).await;
    let content = service.homeserver.content(ROOM, CALL_MEMBER, &key("bob")).unwrap();
    assert_eq!((&content["application"], &content["device_id"]), (&json!("m.call"), &json!("bob-phone")));

    bob.call("leave", json!({"participant_id": bobs_id})).await.unwrap();
    assert_eq!(alice.told("user_left").await["reason"], "left");
    service.homeserver.calling_becomes(ROOM, &[&key("alice")]).await;
}

#[tokio::test]
async fn two_clients_hear_each_other_through_the_whole_service() {
    let service = Service::start().await;
    service.homeserver.voice_room(ROOM, &["alice", "bob"]);
    let mut talkers = Vec::new();
    let mut clients = Vec::new();
    for name in ["alice", "bob"] {
        let (mut client, id) = service.joins(name).await;
        let (mut talker, offer) = Talker::new(2);
        let answer = client.call("offer", json!({"participant_id": id, "offer_id": 7, "sdp": offer})).await.unwrap();
        assert_eq!(answer["answer_id"], 7);
        talker.accept(answer["sdp"].as_str().unwrap());
        talkers.push(talker);
        clients.push(client);
    }

    let heard = tokio::task::spawn_blocking(move || {
        let started = Instant::now();
        while !(talkers[0].heard_payload(b"bob") && talkers[1].heard_payload(b"alice")) && started.elapsed() < PATIENCE
        {
            for (talker, payload) in talkers.iter_mut().zip([b"alice".as_slice(), b"bob"]) {
                if talker.connected {
                    talker.speak(payload, -20);
                }
                talker.step(Duration::from_millis(2));
            }
        }
        talkers[0].heard_payload(b"bob") && talkers[1].heard_payload(b"alice")
    });

    assert!(heard.await.unwrap(), "both were heard");
    let map = clients[0].told("tracks").await["mid_map"].clone();
    assert_eq!(map.as_object().unwrap().values().filter(|holder| holder.is_string()).count(), 1);
    assert_eq!(clients[0].told("speaking").await["state"], "started");
}

#[tokio::test]
async fn whoever_does_not_prove_who_they_are_gets_nowhere() {
    let service = Service::start().await;
    let mut client = service.connect().await;

    assert_eq!(client.call("join", json!({"room_id": ROOM})).await, Err(-32001));
    assert_eq!(client.call("hello", json!({})).await, Err(-32602));
    assert_eq!(client.call("hello", json!({"access_token": "stolen"})).await, Err(-32001));
    client
        .send(
            json!({"jsonrpc": "2.0", "id": 9, "method": "voice.hello", "params": {"access_token": "stolen"}})
                .to_string(),
        )
        .await;

    assert_eq!(client.closed_with().await, 1008);
}

#[tokio::test]
async fn the_sub_protocol_is_required() {
    let service = Service::start().await;
    let request = format!("ws://{}/_voicechat/v1/ws", service.address).into_client_request().unwrap();

    let Err(tungstenite::Error::Http(answer)) = connect_async(request).await else { panic!("it was let in") };

    assert_eq!(answer.status(), 400);
}

#[tokio::test]
async fn an_openid_token_proves_its_user_and_nobody_else() {
    let service = Service::start().await;
    let hello = |user: &str, server: &str| {
        let token = json!({"access_token": "openid-alice", "token_type": "Bearer", "matrix_server_name": server, "expires_in": 60});
        json!({"openid": token, "user_id": user, "device_id": "tablet"})
    };

    let welcome = service.connect().await.call("hello", hello("@alice:example.org", SERVER_NAME)).await.unwrap();
    let other_user = service.connect().await.call("hello", hello("@bob:example.org", SERVER_NAME)).await;
    let private = service.connect().await.call("hello", hello("@alice:127.0.0.1", "127.0.0.1")).await;
    let nonsense = service.connect().await.call("hello", hello("@alice:x", "a b/c")).await;

    assert_eq!((&welcome["user_id"], &welcome["device_id"]), (&json!("@alice:example.org"), &json!("tablet")));
    assert_eq!((other_user, private, nonsense), (Err(-32001), Err(-32001), Err(-32001)));
}

/// Another homeserver, with a certificate of its own: returns its name, the certificate, and serves user info.
async fn foreign_homeserver() -> (String, String) {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let certified = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let (pem, key) = (certified.cert.pem(), certified.signing_key.serialize_pem());
    let tls =
        axum_server::tls_rustls::RustlsConfig::from_pem(pem.clone().into_bytes(), key.into_bytes()).await.unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let name = listener.local_addr().unwrap().to_string();
    let userinfo = json!({"sub": format!("@carol:{name}")});
    let router = axum::Router::new()
        .route("/_matrix/federation/v1/openid/userinfo", axum::routing::get(|| async { axum::Json(userinfo) }));
    tokio::spawn(axum_server::from_tcp_rustls(listener, tls).unwrap().serve(router.into_make_service()));
    (name, pem)
}

#[tokio::test]
async fn a_user_of_another_homeserver_comes_in_and_writes_her_own_membership() {
    let (foreign, certificate) = foreign_homeserver().await;
    let homeserver = Homeserver::start().await;
    let carol = format!("@carol:{foreign}");
    homeserver.voice_room(ROOM, &["alice", &carol]);
    let data = tempfile::tempdir().unwrap();
    let settings = Settings {
        trusted_ca_pem: Some(certificate.into_bytes()),
        allow_private_addresses: true,
        ..settings(&homeserver, data.path())
    };
    let (_running, address) = serve_with(settings).await;
    let hello = |user_id: &str| {
        let token =
            json!({"access_token": "x", "token_type": "Bearer", "matrix_server_name": foreign, "expires_in": 60});
        json!({"openid": token, "user_id": user_id, "device_id": "tablet"})
    };

    let claimed_other = Client::connect(address).await.call("hello", hello(&format!("@dave:{foreign}"))).await;
    let mut client = Client::connect(address).await;
    client.call("hello", hello(&carol)).await.unwrap();
    client.call("join", json!({"room_id": ROOM})).await.unwrap();
    let mut alice = Client::connect(address).await;
    alice.call("hello", json!({"access_token": "token-alice"})).await.unwrap();
    let joined = alice.call("join", json!({"room_id": ROOM})).await.unwrap();

    assert_eq!(claimed_other, Err(-32001));
    assert_eq!(joined["participants"].as_array().unwrap().len(), 2);
    homeserver.calling_becomes(ROOM, &[&key("alice")]).await;
}

#[tokio::test]
async fn the_room_state_decides_who_comes_in() {
    let service = Service::start().await;
    service.homeserver.voice_room(ROOM, &["alice", "bob"]);
    service.homeserver.put(ROOM, state_event("org.voicechat.voice.config", "", "", json!({"user_limit": 1})));
    let text = state_event("m.room.create", "", &user_id("mod"), json!({"room_version": "11"}));
    service.homeserver.put("!text:example.org", text);
    let (_alice, _) = service.joins("alice").await;

    let mut bob = service.client("bob").await;
    let mut eve = service.client("eve").await;

    assert_eq!(bob.call("join", json!({"room_id": ROOM})).await, Err(-32004));
    assert_eq!(bob.call("join", json!({"room_id": "!text:example.org"})).await, Err(-32005));
    assert_eq!(eve.call("join", json!({"room_id": ROOM})).await, Err(-32003));
    assert_eq!(eve.call("join", json!({"room_id": "!unknown:example.org"})).await, Err(-32003));
    assert_eq!(eve.call("join", json!({"room_id": "not a room"})).await, Err(-32602));
}

#[tokio::test]
async fn a_homeserver_that_only_shows_state_to_its_users_is_asked_as_one_of_them() {
    let service = Service::beside(Homeserver::start_strict().await).await;
    service.homeserver.voice_room(ROOM, &["alice"]);

    service.joins("alice").await;

    service.homeserver.calling_becomes(ROOM, &[&key("alice")]).await;
}

#[tokio::test]
async fn batches_are_answered_in_order_and_notifications_not_at_all() {
    let service = Service::start().await;
    let mut client = service.client("alice").await;
    let ping = |id: Value| json!({"jsonrpc": "2.0", "id": id, "method": "voice.ping", "params": {"t": id}});

    client.send("no json").await;
    let refusal = client.answer().await;
    client.send(json!({"jsonrpc": "2.0", "method": "voice.ping"}).to_string()).await;
    client
        .send(json!([ping(json!(1)), {"jsonrpc": "2.0", "method": "voice.ping"}, 5, ping(json!("two"))]).to_string())
        .await;
    let answers = client.answer().await;

    assert_eq!((&refusal["id"], &refusal["error"]["code"]), (&Value::Null, &json!(-32700)));
    let ids: Vec<_> = answers.as_array().unwrap().iter().map(|answer| answer["id"].clone()).collect();
    assert_eq!(ids, [json!(1), Value::Null, json!("two")]);
    assert_eq!(answers[2]["result"]["t"], "two");
    assert_eq!(client.call("dance", json!({})).await, Err(-32601));
}

#[tokio::test]
async fn whoever_talks_too_fast_is_slowed_and_then_shut_out() {
    let service = Service::start().await;
    let mut client = service.client("alice").await;

    for serial in 0..400 {
        let ping = json!({"jsonrpc": "2.0", "id": serial, "method": "voice.ping"});
        if client.socket.send(Message::text(ping.to_string())).await.is_err() {
            break;
        }
    }
    let mut slowed = 0;
    let code = loop {
        match client.receive().await {
            Ok(answer) if answer["error"]["code"] == -32029 => {
                assert!(answer["error"]["data"]["retry_after_ms"].as_u64().unwrap() > 0);
                slowed += 1;
            }
            Ok(answer) => assert!(answer.get("result").is_some()),
            Err(code) => break code,
        }
    };

    assert!(slowed > 100, "{slowed}");
    assert!(code == 1008 || code == 1006, "{code}");
}

#[tokio::test]
async fn rubbish_is_shut_out_as_soon_as_requests_are() {
    let service = Service::start().await;
    for rubbish in ["{", "[]", r#"{"jsonrpc":"1.0","id":1,"method":"voice.ping"}"#, "[1,2,3]"] {
        let mut client = service.client("alice").await;
        for _ in 0..400 {
            if client.socket.send(Message::text(rubbish)).await.is_err() {
                break;
            }
        }

        let code = client.closed_with().await;

        assert!(code == 1008 || code == 1006, "{rubbish}: {code}");
    }
}

#[tokio::test]
async fn a_batch_counts_as_many_as_it_holds() {
    let service = Service::start().await;
    let mut client = service.client("alice").await;
    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "voice.ping"});

    client.send(Value::Array(vec![ping.clone(); 32]).to_string()).await;
    client.send(Value::Array(vec![ping.clone(); 32]).to_string()).await;
    let (first, second) = (client.answer().await, client.answer().await);

    let refused =
        |answers: &Value| answers.as_array().unwrap().iter().filter(|answer| answer["error"]["code"] == -32029).count();
    assert_eq!(refused(&first), 0);
    assert!(refused(&second) > 0);
    client.send(Value::Array(vec![ping; 33]).to_string()).await;
    assert_eq!(client.answer().await["error"]["code"], -32600);
}

#[tokio::test]
async fn parameters_of_wrong_types_are_refused_and_the_call_goes_on() {
    let service = Service::start().await;
    service.homeserver.voice_room(ROOM, &["alice"]);
    let (mut alice, id) = service.joins("alice").await;

    for method in ["leave", "offer", "answer", "ice", "mute", "unmute", "deafen", "subscribe", "kick", "stats"] {
        for wrong in
            [json!({}), json!({"participant_id": 7}), json!({"participant_id": [id]}), json!({"participant_id": null})]
        {
            assert_eq!(alice.call(method, wrong.clone()).await, Err(-32602), "voice.{method} {wrong}");
        }
    }

    let muted = alice.call("mute", json!({"participant_id": id})).await.unwrap();
    assert_eq!(muted["muted"], true);
}

#[tokio::test]
async fn an_id_used_twice_is_answered_twice() {
    let service = Service::start().await;
    let mut client = service.client("alice").await;

    for t in ["first", "second"] {
        client
            .send(json!({"jsonrpc": "2.0", "id": "same", "method": "voice.ping", "params": {"t": t}}).to_string())
            .await;
    }
    let answers = [client.answer().await, client.answer().await];

    assert_eq!(answers.each_ref().map(|answer| answer["id"].as_str().unwrap()), ["same", "same"]);
    assert_eq!(answers.each_ref().map(|answer| answer["result"]["t"].as_str().unwrap()), ["first", "second"]);
}

#[tokio::test]
async fn a_message_that_is_too_long_ends_the_connection() {
    let service = Service::start().await;
    let mut client = service.client("alice").await;
    let long = json!({"jsonrpc": "2.0", "id": 1, "method": "voice.ping", "params": {"t": "x".repeat(200_000)}});

    // The server may hang up before all of it is written.
    let _ = client.socket.send(Message::text(long.to_string())).await;

    let code = client.closed_with().await;
    assert!([1002, 1006, 1009].contains(&code), "{code}");
    service.client("alice").await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_sends_its_hello_drop_by_drop_is_closed() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let service = Service::start().await;
    let mut stream = tokio::net::TcpStream::connect(service.address).await.unwrap();
    let upgrade = format!(
        "GET /_voicechat/v1/ws HTTP/1.1\r\nhost: {}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         sec-websocket-protocol: jsonrpc2.voicechat.v1\r\n\r\n",
        service.address
    );
    stream.write_all(upgrade.as_bytes()).await.unwrap();

    // The head of a masked text frame of a hundred bytes, and four of them.
    stream.write_all(&[0x81, 0x80 | 100, 0, 0, 0, 0, b'{', b'"', b'j', b's']).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();

    let close_frame = [0x88, 2, 0x03, 0xf0];
    assert!(answer.starts_with(b"HTTP/1.1 101"));
    assert!(answer.ends_with(&close_frame), "{:?}", &answer[answer.len() - 8..]);
}

#[tokio::test]
async fn two_devices_of_one_user_are_both_in_the_call_and_leave_one_by_one() {
    let service = Service::start().await;
    service.homeserver.voice_room(ROOM, &["alice"]);
    let hello = |device: &str| {
        let token = json!({"access_token": "openid-alice", "token_type": "Bearer", "matrix_server_name": SERVER_NAME, "expires_in": 60});
        json!({"openid": token, "user_id": user_id("alice"), "device_id": device})
    };
    let mut clients = Vec::new();
    for device in ["phone", "tablet"] {
        let mut client = service.connect().await;
        client.call("hello", hello(device)).await.unwrap();
        let joined = client.call("join", json!({"room_id": ROOM})).await.unwrap();
        clients.push((client, joined));
    }
    let state_key = |device: &str| format!("_{}_{device}_m.call", user_id("alice"));
    service.homeserver.calling_becomes(ROOM, &[&state_key("phone"), &state_key("tablet")]).await;

    assert_eq!(clients[1].1["participants"].as_array().unwrap().len(), 2);
    let (mut phone, joined) = clients.remove(0);
    phone.call("leave", json!({"participant_id": joined["participant_id"]})).await.unwrap();

    service.homeserver.calling_becomes(ROOM, &[&state_key("tablet")]).await;
}

#[tokio::test]
async fn a_device_that_connects_again_takes_its_place_over() {
    let service = Service::start().await;
    service.homeserver.voice_room(ROOM, &["alice", "bob"]);
    let (mut alice, _) = service.joins("alice").await;
    let (mut before, id_before) = service.joins("bob").await;

    let (_after, id_after) = service.joins("bob").await;

    assert_ne!(id_before, id_after);
    assert_eq!(before.told("user_left").await["reason"], "replaced");
    assert_eq!(before.call("mute", json!({"participant_id": id_before})).await, Err(-32002));
    assert_eq!(alice.told("user_joined").await["participant"]["participant_id"], id_before);
    assert_eq!(alice.told("user_left").await["participant_id"], id_before);
    assert_eq!(alice.told("user_joined").await["participant"]["participant_id"], id_after);
    service.homeserver.calling_becomes(ROOM, &[&key("alice"), &key("bob")]).await;
}

#[tokio::test]
async fn one_user_has_only_so_many_connections() {
    let service = Service::start().await;
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(service.client("alice").await);
    }

    let eleventh = service.connect().await.call("hello", json!({"access_token": "token-alice"})).await;

    assert_eq!(eleventh, Err(-32029));
    service.client("bob").await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_does_not_say_hello_is_closed() {
    let service = Service::start().await;
    let mut client = service.connect().await;

    assert_eq!(client.closed_with().await, 1008);
}

#[tokio::test]
async fn only_the_homeserver_may_push() {
    let service = Service::start().await;

    assert_eq!(service.push("1", "", json!({"events": []})).await, 401);
    assert_eq!(service.push("1", "wrong", json!({"events": []})).await, 403);
    assert_eq!(service.push("1", HS_TOKEN, json!({"events": 7})).await, 400);
    assert_eq!(service.push("1", HS_TOKEN, json!({"events": [{"type": "odd"}, 7, null]})).await, 200);
}

#[tokio::test]
async fn a_ban_that_is_pushed_removes_at_once_and_a_repeated_push_does_nothing() {
    let service = Service::start().await;
    service.homeserver.voice_room(ROOM, &["alice", "bob"]);
    let (mut alice, _) = service.joins("alice").await;
    let (mut bob, bobs_id) = service.joins("bob").await;
    let member = |membership: &str| {
        state_event("m.room.member", &user_id("bob"), &user_id("mod"), json!({"membership": membership}))
    };

    service.homeserver.put(ROOM, member("ban"));
    service.push_event("t1", member("ban")).await;
    assert_eq!(bob.told("user_left").await["reason"], "forbidden");
    assert_eq!(alice.told("user_left").await["participant_id"], bobs_id);
    assert_eq!(bob.call("mute", json!({"participant_id": bobs_id})).await, Err(-32002));
    service.homeserver.calling_becomes(ROOM, &[&key("alice")]).await;

    service.push_event("t2", member("join")).await;
    service.push_event("t1", member("ban")).await;
    bob.call("join", json!({"room_id": ROOM})).await.unwrap();
}

#[tokio::test]
async fn someone_let_in_a_moment_ago_may_join_before_the_push_arrives() {
    let service = Service::start().await;
    service.homeserver.voice_room(ROOM, &["alice"]);
    let (_alice, _) = service.joins("alice").await;
    let mut bob = service.client("bob").await;

    assert_eq!(bob.call("join", json!({"room_id": ROOM})).await, Err(-32003));
    let bob_joined = state_event("m.room.member", &user_id("bob"), &user_id("bob"), json!({"membership": "join"}));
    service.homeserver.put(ROOM, bob_joined);

    bob.call("join", json!({"room_id": ROOM})).await.unwrap();
}

#[tokio::test]
async fn joins_that_make_the_homeserver_work_are_few() {
    let service = Service::start().await;
    service.homeserver.voice_room(ROOM, &["alice"]);
    let mut eve = service.client("eve").await;

    let mut codes = Vec::new();
    for _ in 0..30 {
        codes.push(eve.call("join", json!({"room_id": ROOM})).await.unwrap_err());
    }

    assert_eq!((codes[0], codes[29]), (-32003, -32029));
}

#[tokio::test]
async fn a_lost_connection_leaves_the_room_state_by_itself() {
    let service = Service::start().await;
    service.homeserver.voice_room(ROOM, &["alice", "bob"]);
    let (mut alice, _) = service.joins("alice").await;
    let (bob, _) = service.joins("bob").await;
    service.homeserver.calling_becomes(ROOM, &[&key("alice"), &key("bob")]).await;

    drop(bob);

    assert_eq!(alice.told("user_left").await["reason"], "connection_lost");
    service.homeserver.calling_becomes(ROOM, &[&key("alice")]).await;
}

#[tokio::test]
async fn a_membership_that_the_client_wrote_is_kept_until_it_leaves() {
    let service = Service::start().await;
    service.homeserver.voice_room(ROOM, &["alice"]);
    let written = json!({"application": "m.call", "device_id": "alice-phone", "expires": 14_400_000, "created_ts": 9_000_000_000_000_u64, "own": true});
    service.homeserver.put(ROOM, state_event(CALL_MEMBER, &key("alice"), &user_id("alice"), written));

    let (mut alice, id) = service.joins("alice").await;
    let kept = service.homeserver.content(ROOM, CALL_MEMBER, &key("alice")).unwrap();
    alice.call("leave", json!({"participant_id": id})).await.unwrap();

    assert_eq!(kept["own"], true);
    service.homeserver.calling_becomes(ROOM, &[]).await;
}

#[tokio::test]
async fn a_membership_is_asked_for_until_the_homeserver_takes_it() {
    let service = Service::start().await;
    service.homeserver.voice_room(ROOM, &["alice"]);
    service.homeserver.fail_writes(3);

    let (mut alice, id) = service.joins("alice").await;
    service.homeserver.calling_becomes(ROOM, &[&key("alice")]).await;
    service.homeserver.fail_writes(2);
    alice.call("leave", json!({"participant_id": id})).await.unwrap();

    service.homeserver.calling_becomes(ROOM, &[]).await;
}

#[test]
fn a_service_that_was_killed_clears_what_it_left_when_it_starts_again() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let lasting = runtime();
    let homeserver = lasting.block_on(Homeserver::start());
    homeserver.voice_room(ROOM, &["alice"]);
    let data = tempfile::tempdir().unwrap();

    let killed = runtime();
    let running = killed.block_on(async {
        let (running, address) = serve(&homeserver, data.path()).await;
        let mut alice = Client::connect(address).await;
        alice.call("hello", json!({"access_token": "token-alice"})).await.unwrap();
        alice.call("join", json!({"room_id": ROOM})).await.unwrap();
        homeserver.calling_becomes(ROOM, &[&key("alice")]).await;
        (running, alice)
    });
    killed.shutdown_background();
    std::mem::forget(running);
    assert_eq!(homeserver.calling(ROOM), [key("alice")]);

    lasting.block_on(async {
        let (_running, _) = serve(&homeserver, data.path()).await;
        homeserver.calling_becomes(ROOM, &[]).await;
    });
}

#[tokio::test]
async fn stopping_says_goodbye_and_leaves_no_membership() {
    let service = Service::start().await;
    service.homeserver.voice_room(ROOM, &["alice"]);
    let (mut alice, _) = service.joins("alice").await;
    service.homeserver.calling_becomes(ROOM, &[&key("alice")]).await;

    service.running.stop().await;

    assert!(alice.told("server_going_away").await["resume_after_ms"].as_u64().unwrap() > 0);
    assert_eq!(alice.told("user_left").await["reason"], "server_stopped");
    assert_eq!(alice.closed_with().await, 1012);
    assert_eq!(service.homeserver.calling(ROOM), Vec::<String>::new());
    assert_eq!(std::fs::read_to_string(service.data.path().join("voice-live-memberships.json")).unwrap(), "[]");
}

#[tokio::test]
async fn the_page_comes_with_a_policy_and_health_counts_people() {
    let service = Service::start().await;
    service.homeserver.voice_room(ROOM, &["alice"]);
    let (_alice, _) = service.joins("alice").await;
    let get = |path: &str| reqwest::get(format!("http://{}{path}", service.address));

    let page = get("/voice/check").await.unwrap();
    let health: Value = get("/voice/health").await.unwrap().json().await.unwrap();

    let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
    let nonce = policy.split("'nonce-").nth(1).unwrap().split('\'').next().unwrap().to_owned();
    assert!(policy.starts_with("default-src 'none'"));
    assert!(page.text().await.unwrap().contains(&format!("<script nonce=\"{nonce}\">")));
    assert_eq!(health, json!({"status": "ok", "rooms": 1, "participants": 1}));
}
