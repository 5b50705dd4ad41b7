//! What older servers ask, and what nobody answers.

use axum::{body::Body, http::Request};
use ruma::{CanonicalJsonObject, OwnedUserId, RoomVersionId};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::server::{Authority, Server};

/// A request of `here` to `there`, signed; status and body of the answer.
async fn asks(here: &Server, there: &Server, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
    let mut signed = json!({ "method": method, "uri": path, "origin": here.name, "destination": there.name });
    if let Some(body) = body {
        signed["content"] = body.clone();
    }
    let mut object: CanonicalJsonObject = serde_json::from_value(signed).unwrap();
    here.cx.signing_key.sign(&here.name, &mut object).unwrap();
    let signed = serde_json::to_value(&object).unwrap();
    let (key, signature) = signed["signatures"][here.name.as_str()].as_object().unwrap().iter().next().unwrap();
    let header = format!(
        r#"X-Matrix origin="{}",destination="{}",key="{key}",sig="{}""#,
        here.name,
        there.name,
        signature.as_str().unwrap()
    );
    let body = body.map(ToString::to_string).unwrap_or_default();
    let request = Request::builder().method(method).uri(path).header("authorization", header);
    let reply = homeserver::app(there.services.clone()).oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
    let status = reply.status().as_u16();
    let body = axum::body::to_bytes(reply.into_body(), 1 << 20).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap())
}

/// The event a template asks for, with its id.
async fn completed(here: &Server, there: &Server, what: &str, user: &OwnedUserId, room_id: &str) -> (String, Value) {
    let ver = if what == "make_join" { "?ver=11" } else { "" };
    let path = format!("/_matrix/federation/v1/{what}/{room_id}/{user}{ver}");
    let (status, template) = asks(here, there, "GET", &path, None).await;
    assert_eq!(status, 200, "{template}");
    let rules = room::versions::rules(&RoomVersionId::V11).unwrap();
    let mut event: CanonicalJsonObject = serde_json::from_value(template["event"].clone()).unwrap();
    let key = here.cx.signing_key.pair();
    ruma::signatures::hash_and_sign_event(here.name.as_str(), key, &mut event, &rules.redaction).unwrap();
    let id = ruma::signatures::reference_hash(&event, rules).unwrap();
    (format!("${id}"), serde_json::to_value(&event).unwrap())
}

#[tokio::test]
async fn a_server_that_asks_by_version_one_joins_and_leaves_with_the_status_in_the_answer() {
    let authority = Authority::new();
    let (here, there) = (Server::start(&authority).await, Server::start(&authority).await);
    let (alice, bob) = (here.user("alice").await, there.user("bob").await);
    let room_id = here.room(&alice, RoomVersionId::V11, "public").await;

    let (id, join) = completed(&there, &here, "make_join", &bob, room_id.as_str()).await;
    let path = format!("/_matrix/federation/v1/send_join/{room_id}/{id}");
    let (status, answer) = asks(&there, &here, "PUT", &path, Some(&join)).await;

    assert_eq!((status, &answer[0]), (200, &json!(200)), "{answer}");
    assert_eq!(answer[1]["state"].as_array().unwrap().len(), here.state_of(&room_id).await.len() - 1);
    assert_eq!(answer[1]["event"], join);

    let (id, leave) = completed(&there, &here, "make_leave", &bob, room_id.as_str()).await;
    let path = format!("/_matrix/federation/v1/send_leave/{room_id}/{id}");
    let (status, answer) = asks(&there, &here, "PUT", &path, Some(&leave)).await;

    assert_eq!((status, answer), (200, json!([200, {}])));
    assert_eq!(here.services.timeline.room(&room_id).await.unwrap().inhabitants.joined, 1);
    let path = format!("/_matrix/federation/v1/send_join/{room_id}/{id}");
    assert_eq!(asks(&there, &here, "PUT", &path, Some(&leave)).await.0, 400);
}

#[tokio::test]
async fn an_invitation_to_a_room_of_versions_we_do_not_know_is_refused_with_the_version() {
    let authority = Authority::new();
    let (here, there) = (Server::start(&authority).await, Server::start(&authority).await);
    let (alice, bob) = (here.user("alice").await, there.user("bob").await);
    let event = json!({
        "type": "m.room.member", "room_id": "!old:example.org", "sender": alice, "state_key": bob, "origin": here.name,
        "origin_server_ts": 1, "content": { "membership": "invite" },
    });

    let path = "/_matrix/federation/v1/invite/!old:example.org/$event:example.org";
    let (status, answer) = asks(&here, &there, "PUT", path, Some(&event)).await;
    let told = json!({ "room_version": "org.example.odd", "event": event, "invite_room_state": [] });
    let path = "/_matrix/federation/v2/invite/!old:example.org/$event";
    let (status_of_2, answer_of_2) = asks(&here, &there, "PUT", path, Some(&told)).await;

    assert_eq!((status, status_of_2), (400, 400), "{answer} {answer_of_2}");
    let code = json!("M_INCOMPATIBLE_ROOM_VERSION");
    assert_eq!((&answer["errcode"], &answer["room_version"]), (&code, &json!("1")));
    assert_eq!((&answer_of_2["errcode"], &answer_of_2["room_version"]), (&code, &json!("org.example.odd")));
}

#[tokio::test]
async fn a_query_nobody_knows_is_not_recognised() {
    let authority = Authority::new();
    let (here, there) = (Server::start(&authority).await, Server::start(&authority).await);

    let (status, answer) = asks(&here, &there, "GET", "/_matrix/federation/v1/query/weather?at=noon", None).await;

    assert_eq!((status, &answer["errcode"]), (404, &json!("M_UNRECOGNIZED")));
}

#[tokio::test]
async fn an_invitation_to_a_room_of_version_twelve_shows_the_rooms_own_events_or_is_refused() {
    let authority = Authority::new();
    let (here, there) = (Server::start(&authority).await, Server::start(&authority).await);
    let (alice, bob) = (here.user("alice").await, there.user("bob").await);
    for (version, must_be_whole) in [(RoomVersionId::V11, false), (RoomVersionId::V12, true)] {
        let room_id = here.room(&alice, version.clone(), "invite").await;
        let other_room = here.room(&alice, version.clone(), "invite").await;
        let shown = async |room_id: &ruma::RoomId| {
            let now = here.services.timeline.room(room_id).await.unwrap();
            let events = here.services.resident.outside_state(&now).await.unwrap();
            events.iter().map(|e| serde_json::to_value(e.to_federation()).unwrap()).collect::<Vec<Value>>()
        };
        let (whole, foreign) = (shown(&room_id).await, shown(&other_room).await);
        let mut unsigned = whole.clone();
        unsigned[0]["signatures"] = json!({});
        let stripped: Vec<Value> = whole
            .iter()
            .map(|e| json!({ "type": e["type"], "state_key": "", "sender": e["sender"], "content": e["content"] }))
            .collect();
        let invite = async |state: &[Value]| {
            let now = here.services.timeline.room(&room_id).await.unwrap();
            let content = serde_json::value::to_raw_value(&json!({ "membership": "invite" })).unwrap();
            let draft = room::build::Draft::state("m.room.member", bob.as_str(), alice.clone(), content);
            let (prev_events, depth) = now.next_place();
            let place = room::build::Place {
                room_id: Some(room_id.clone()),
                prev_events,
                auth_events: Vec::new(),
                depth,
                origin_server_ts: here.cx.clock.now(),
            };
            let event = room::build::build(&draft, &place, here.cx.signer(), now.rules).unwrap();
            let told = json!({ "room_version": version, "event": event.to_federation(), "invite_room_state": state });
            let path = format!("/_matrix/federation/v2/invite/{room_id}/{}", event.event_id);
            let (status, answer) = asks(&here, &there, "PUT", &path, Some(&told)).await;
            (status, answer["errcode"].as_str().map(str::to_owned))
        };

        let wrong = [Vec::new(), whole[1..].to_vec(), foreign, unsigned, stripped];
        for state in &wrong {
            let expected = if must_be_whole { (400, Some("M_INVALID_PARAM".to_owned())) } else { (200, None) };
            assert_eq!(invite(state).await, expected, "{version}: {state:?}");
        }
        assert_eq!(invite(&whole).await, (200, None), "{version}");
        let kept = there.invitation(&bob, &room_id).await.unwrap().state;
        assert!(kept.contains("m.room.create") && !kept.contains("signatures"), "{version}: {kept} of {whole:?}");
    }
}
