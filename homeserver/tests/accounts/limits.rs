//! Rates: in memory and in Valkey.

#![allow(clippy::disallowed_methods, reason = "tests take the address of a Valkey from the environment")]

use std::{net::IpAddr, time::Duration};

use serde_json::json;
use services::{
    error::Error,
    limits::{Action, Limits, Rate, Settings, Subject},
    valkey::Valkey,
};

use crate::fixture::{PASSWORD, TestServer, settings};

fn limited(configure: impl FnOnce(&mut services::limits::Settings)) -> services::Settings {
    let mut settings = settings();
    settings.limits.is_off = false;
    configure(&mut settings.limits);
    settings
}

#[tokio::test]
async fn a_burst_passes_then_so_many_a_minute() {
    let rates = || limited(|limits| limits.message = Rate::new(3, 60));
    for server in [TestServer::start_with(rates()).await, TestServer::start_with_valkey(rates()).await] {
        let [alice, bob] = [Subject::User(1), Subject::User(2)];
        let limits = &server.services.limits;
        let take = async |subject: &Subject| limits.take(Action::Message, subject).await;

        for _ in 0..3 {
            take(&alice).await.unwrap();
        }
        let refused = take(&alice).await.unwrap_err();
        assert!(
            matches!(refused, Error::Limited { retry_after } if retry_after == Duration::from_secs(1)),
            "{refused}"
        );
        take(&bob).await.unwrap();
        limits.check(Action::Join, &alice).await.unwrap();

        server.clock.advance(Duration::from_millis(999));
        take(&alice).await.unwrap_err();
        server.clock.advance(Duration::from_millis(1));
        limits.check(Action::Message, &alice).await.unwrap();
        take(&alice).await.unwrap();
        take(&alice).await.unwrap_err();
        server.clock.advance(Duration::from_secs(3600));
        for _ in 0..3 {
            take(&alice).await.unwrap();
        }
        take(&alice).await.unwrap_err();
    }
}

#[tokio::test]
async fn whoever_has_a_network_has_one_address() {
    let server = TestServer::start_with(limited(|limits| limits.login = Rate::new(1, 1))).await;
    let from = |text: &str| Subject::Address(text.parse::<IpAddr>().unwrap());
    let limits = &server.services.limits;

    limits.take(Action::Login, &from("2001:db8:0:1::1")).await.unwrap();

    limits.take(Action::Login, &from("2001:db8:0:1:ffff::2")).await.unwrap_err();
    limits.take(Action::Login, &from("2001:db8:0:2::1")).await.unwrap();
    limits.take(Action::Login, &from("192.0.2.9")).await.unwrap();
    limits.take(Action::Login, &from("::ffff:192.0.2.9")).await.unwrap_err();
}

#[tokio::test]
async fn logging_in_too_often_from_one_address_is_told_when_to_come_back() {
    let server = TestServer::start_with(limited(|limits| limits.login = Rate::new(3, 60))).await;
    let alice = server.user("alice").await;
    let body = json!({ "type": "m.login.password", "user": "alice", "password": PASSWORD });
    let path = "/_matrix/client/v3/login";

    alice.post(path, body.clone()).await.ok();
    alice.post(path, body.clone()).await.ok();
    let refused = alice.post(path, body.clone()).await;

    assert_eq!(refused.refusal(), (429, "M_LIMIT_EXCEEDED".to_owned()));
    assert_eq!(refused.json()["retry_after_ms"], 1000);
    assert_eq!(refused.headers["retry-after"], "1");
    let mut elsewhere = alice;
    elsewhere.address = "198.51.100.1".parse().unwrap();
    elsewhere.post(path, body).await.ok();
}

#[tokio::test]
async fn guessing_a_password_is_slowed_for_the_account_wherever_one_comes_from() {
    let server = TestServer::start_with(limited(|limits| limits.login_failure = Rate::new(2, 6))).await;
    let alice = server.user("alice").await;
    let path = "/_matrix/client/v3/login";
    let with = |password: &str| json!({ "type": "m.login.password", "user": "alice", "password": password });
    let mut guesser = server.anonymous();

    for n in 1..=2 {
        guesser.address = IpAddr::from([198, 51, 100, n]);
        assert_eq!(guesser.post(path, with("wrong password")).await.status(), 403);
    }
    guesser.address = IpAddr::from([198, 51, 100, 3]);
    assert_eq!(guesser.post(path, with(PASSWORD)).await.status(), 429);
    let auth = json!({ "type": "m.login.password", "user": "alice", "password": "wrong password" });
    let second = format!("/_matrix/client/v3/devices/{}", alice.device_id);
    for _ in 0..2 {
        assert_eq!(alice.delete_with(&second, json!({ "auth": auth })).await.status(), 401);
    }
    assert_eq!(alice.delete_with(&second, json!({ "auth": auth })).await.status(), 429);
    server.clock.advance(Duration::from_secs(10));
    assert_eq!(guesser.post(path, with(PASSWORD)).await.status(), 200);
}

#[tokio::test]
async fn registering_is_slowed_by_address() {
    let server = TestServer::start_with(limited(|limits| limits.registration = Rate::new(1, 1))).await;
    server.user("alice").await;

    let body = json!({ "username": "bob", "password": PASSWORD, "auth": { "type": "m.login.dummy" } });
    let reply = server.anonymous().post("/_matrix/client/v3/register", body).await;

    assert_eq!(reply.refusal(), (429, "M_LIMIT_EXCEEDED".to_owned()));
    assert_eq!(reply.json()["retry_after_ms"], 60_000);
}

#[tokio::test]
async fn when_valkey_is_away_messages_pass_and_logins_wait() {
    let server = TestServer::start().await;
    let url = std::env::var("TEST_VALKEY_URL").expect("TEST_VALKEY_URL names a Valkey or Redis to test on");
    let valkey = Valkey::connect(&url, "away.example.org").await.unwrap();
    let limits = Limits::new(server.context.clone(), Settings::default(), Some(valkey.clone()));
    let user = Subject::User(1);

    valkey.close().await;

    limits.take(Action::Message, &user).await.unwrap();
    let refused = limits.take(Action::Login, &user).await.unwrap_err();
    assert!(matches!(refused, Error::Limited { .. }), "{refused}");
}
