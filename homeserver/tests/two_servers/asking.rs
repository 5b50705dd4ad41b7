//! Requests between servers: who is asked, who is believed.

use axum::{body::Body, http::Request};
use room::{
    Pdu,
    build::{self, Draft, Place},
    versions,
};
use ruma::{
    RoomVersionId,
    api::{
        OutgoingRequestExt as _,
        federation::{
            authentication::XMatrixSigningInput,
            discovery::{get_remote_server_keys, get_server_version},
            query::get_profile_information,
        },
    },
    owned_event_id, owned_room_id,
    serde::Base64,
    user_id,
};
use serde_json::{json, value::to_raw_value};
use services::{
    Error,
    federation::{
        client::Terms,
        keys::Needed,
        signing::{self, SigningKey},
    },
};
use tower::ServiceExt as _;

use crate::server::{Authority, Server};

/// A signed request from `origin` to `destination`, as bytes on the wire.
fn signed(origin: &Server, destination: &str, key: &SigningKey) -> Request<Vec<u8>> {
    let request = get_profile_information::v1::Request::new(user_id!("@alice:example.org").to_owned());
    let input = XMatrixSigningInput::new(origin.name.clone(), destination.try_into().unwrap(), key.pair());
    request.try_into_http_request("https://server", input, ()).unwrap()
}

async fn accepts(server: &Server, request: &Request<Vec<u8>>) -> Result<String, Error> {
    let (parts, body) = request.clone().into_parts();
    let request = Request::from_parts(parts, body.as_slice());
    server.services.federation.authenticate(&request).await.map(|server| server.to_string())
}

#[tokio::test]
async fn a_server_is_asked_over_tls_and_tells_its_version() {
    let authority = Authority::new();
    let (here, there) = (Server::start(&authority).await, Server::start(&authority).await);

    let request = get_server_version::v1::Request::new();
    let answer = here.services.federation.client().send_open(&there.name, request, Terms::BRIEF).await.unwrap();

    assert_eq!(answer.server.unwrap().name.as_deref(), Some("VoiceChat"));
}

#[tokio::test]
async fn a_server_with_a_certificate_nobody_vouches_for_is_not_spoken_to() {
    let here = Server::start(&Authority::new()).await;
    let stranger = Server::start(&Authority::new()).await;

    let request = get_server_version::v1::Request::new();
    let answer = here.services.federation.client().send_open(&stranger.name, request, Terms::BRIEF).await;

    let Err(Error::Remote { status: None, problem, .. }) = answer else { panic!("it answered") };
    assert!(problem.contains("certificate"), "{problem}");
}

#[tokio::test]
async fn private_addresses_are_refused_unless_allowed() {
    let authority = Authority::new();
    let here = Server::start_with(&authority, |s| s.federation.outgoing.allow_private_addresses = false).await;
    let there = Server::start(&authority).await;
    let by_address = format!("127.0.0.1:{}", there.name.port().unwrap()).try_into().unwrap();

    for name in [&there.name, &by_address] {
        let request = get_server_version::v1::Request::new();
        let answer = here.services.federation.client().send_open(name, request, Terms::BRIEF).await;
        let Err(Error::Remote { status: None, problem, .. }) = answer else { panic!("{name} answered") };
        assert!(problem.contains("public"), "{problem}");
    }
}

#[tokio::test]
async fn a_signed_request_proves_which_server_sent_it() {
    let authority = Authority::new();
    let (here, there) = (Server::start(&authority).await, Server::start(&authority).await);

    let request = signed(&here, there.name.as_str(), &here.cx.signing_key);

    assert_eq!(accepts(&there, &request).await.unwrap(), here.name.as_str());
}

#[tokio::test]
async fn a_request_that_was_changed_misdirected_or_signed_by_another_is_refused() {
    let authority = Authority::new();
    let (here, there) = (Server::start(&authority).await, Server::start(&authority).await);
    let (_, _, other_key) = SigningKey::generate(&here.cx.randomness).unwrap();
    let good = signed(&here, there.name.as_str(), &here.cx.signing_key);

    let mut other_method = good.clone();
    *other_method.method_mut() = axum::http::Method::POST;
    let mut other_path = good.clone();
    *other_path.uri_mut() = "/_matrix/federation/v1/query/profile?user_id=@bob:example.org".parse().unwrap();
    let mut other_body = good.clone();
    *other_body.body_mut() = b"{}".to_vec();
    let mut unsigned = good.clone();
    unsigned.headers_mut().clear();
    let misdirected = signed(&here, "elsewhere.example.org", &here.cx.signing_key);
    let forged = signed(&here, there.name.as_str(), &other_key);

    for request in [other_method, other_path, other_body, unsigned, misdirected, forged] {
        let refused = accepts(&there, &request).await;
        assert!(matches!(refused, Err(Error::Specific(services::error::Code::Unauthorized, _))), "{request:?}");
    }
}

#[tokio::test]
async fn the_keys_of_a_server_are_served_signed_by_itself() {
    let server = Server::start(&Authority::new()).await;

    let request = Request::get("/_matrix/key/v2/server").body(Body::empty()).unwrap();
    let reply = homeserver::app(server.services.clone()).oneshot(request).await.unwrap();

    let body = axum::body::to_bytes(reply.into_body(), 10_000).await.unwrap();
    let object = serde_json::from_slice(&body).unwrap();
    let key = Base64::parse(server.cx.signing_key.public()).unwrap();
    signing::verify(&server.name, [(server.cx.signing_key.id(), key)].into(), &object).unwrap();
}

#[tokio::test]
async fn an_expired_key_still_proves_old_events_and_no_new_requests() {
    let authority = Authority::new();
    let (here, there) = (Server::start(&authority).await, Server::start(&authority).await);
    let old = here.cx.signing_key.clone();
    let before_ms = here.cx.clock.now_ms();
    let new = signing::rotate(&here.cx.store, &here.cx.randomness, &here.cx.clock).await.unwrap();
    let here = here.restarted(&authority).await;

    let with_old = signed(&here, there.name.as_str(), &old);
    let with_new = signed(&here, there.name.as_str(), &new);

    assert_eq!(here.cx.signing_key.id(), new.id());
    assert!(accepts(&there, &with_old).await.is_err());
    assert_eq!(accepts(&there, &with_new).await.unwrap(), here.name.as_str());
    let ids = [old.id()].into();
    let keys = there.services.federation.keys();
    assert_eq!(keys.of(&here.name, &ids, Needed::At(before_ms - 1)).await.unwrap().len(), 1);
    assert_eq!(keys.of(&here.name, &ids, Needed::At(before_ms + 60_000)).await.unwrap().len(), 0);
}

#[tokio::test]
async fn a_notary_vouches_for_a_server_that_has_gone() {
    let authority = Authority::new();
    let gone = Server::start(&authority).await;
    let notary = Server::start(&authority).await;
    let notary_name = notary.name.clone();
    let asking = Server::start_with(&authority, |s| s.federation.notaries = vec![notary_name]).await;
    notary.services.federation.keys().vouched(&gone.name, 0).await.unwrap().unwrap();
    gone.vanish();

    let ids = [gone.cx.signing_key.id()].into();
    let keys = asking.services.federation.keys().of(&gone.name, &ids, Needed::Now).await.unwrap();

    assert_eq!(keys.values().next().unwrap().encode(), gone.cx.signing_key.public());
}

#[tokio::test]
async fn a_notary_adds_its_signature_to_the_servers_own() {
    let authority = Authority::new();
    let (subject, notary) = (Server::start(&authority).await, Server::start(&authority).await);
    let asking = Server::start(&authority).await;

    let request = get_remote_server_keys::v2::Request::new(subject.name.clone(), asking.cx.clock.now());
    let answer = asking.services.federation.client().send_open(&notary.name, request, Terms::BRIEF).await.unwrap();

    let object = serde_json::from_str(answer.server_keys[0].json().get()).unwrap();
    for server in [&subject, &notary] {
        let key = Base64::parse(server.cx.signing_key.public()).unwrap();
        signing::verify(&server.name, [(server.cx.signing_key.id(), key)].into(), &object).unwrap();
    }
}

#[tokio::test]
async fn events_of_many_servers_that_have_gone_are_checked_with_keys_from_a_notary() {
    let authority = Authority::new();
    let notary = Server::start(&authority).await;
    let notary_name = notary.name.clone();
    let asking = Server::start_with(&authority, |s| s.federation.notaries = vec![notary_name]).await;
    let rules = versions::rules(&RoomVersionId::V11).unwrap();
    let mut events = Vec::new();
    for _ in 0..6 {
        let subject = Server::start(&authority).await;
        notary.services.federation.keys().vouched(&subject.name, 0).await.unwrap().unwrap();
        let content = to_raw_value(&json!({ "msgtype": "m.text", "body": "remember me" })).unwrap();
        let draft = Draft::message("m.room.message", subject.user("alice").await, content);
        let place = Place {
            room_id: Some(owned_room_id!("!gone:example.org")),
            prev_events: vec![owned_event_id!("$before")],
            auth_events: Vec::new(),
            depth: 7,
            origin_server_ts: subject.cx.clock.now(),
        };
        let event = build::build(&draft, &place, subject.cx.signer(), rules).unwrap().to_federation();
        events.push(Pdu::from_remote(event.get().as_bytes(), rules).unwrap());
        subject.vanish();
    }

    let verdicts = asking.services.federation.keys().verify(events).await.unwrap();

    assert!(verdicts.len() == 6 && verdicts.iter().all(Result::is_ok), "{verdicts:?}");
}
