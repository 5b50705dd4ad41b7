//! Requests of any shape, rightly signed by another server: none panics, none is our fault, and every refusal is a Matrix error.

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::{
    body::{Body, to_bytes},
    http::{Method, Request, header},
};
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedUserId, RoomId,
    api::federation::authentication::{XMatrix, XMatrixSigningInput},
    room_version_rules::RoomVersionRules,
    signatures::hash_and_sign_event,
};
use serde_json::Value;
use tower::ServiceExt as _;

use crate::{
    hostile::{message, scene, witnesses},
    nonsense::{self, Known, Made},
    server::Server,
};

/// Of every so many cases that proptest makes (256, or `PROPTEST_CASES`), one goes to each endpoint.
const CASES_SHARE: u32 = 8;
/// Panics anywhere in this process, in background tasks too.
static PANICS: AtomicUsize = AtomicUsize::new(0);

/// A number that can be signed for each that cannot.
fn signable(value: Value) -> Value {
    match value {
        Value::Number(number) => number.as_i64().filter(|n| n.unsigned_abs() < 1 << 53).unwrap_or(7).into(),
        Value::Array(items) => items.into_iter().map(signable).collect(),
        Value::Object(fields) => Value::Object(fields.into_iter().map(|(key, value)| (key, signable(value))).collect()),
        other => other,
    }
}

/// Events are signed by the server that sends them.
fn sign_events(there: &Server, body: &mut Value) {
    let sign = |event: &mut Value| {
        let Ok(mut object) = serde_json::from_value::<CanonicalJsonObject>(event.clone()) else { return };
        let key = there.cx.signer().key;
        if hash_and_sign_event(there.name.as_str(), key, &mut object, &RoomVersionRules::V11.redaction).is_ok() {
            *event = serde_json::to_value(CanonicalJsonValue::Object(object)).unwrap();
        }
    };
    if let Some(events) = body.get_mut("pdus").and_then(Value::as_array_mut) {
        events.iter_mut().for_each(sign);
    } else if let Some(event) = body.get_mut("event") {
        sign(event);
    } else if body.get("prev_events").is_some() {
        sign(body);
    }
}

/// The request, signed by `there` for `here`. What cannot be signed goes with a signature of something else.
fn signed(here: &Server, there: &Server, method: &Method, made: &Made) -> Request<Body> {
    let body = made.body.clone().map(|body| match serde_json::from_slice::<Value>(&body) {
        Ok(json) => {
            let mut json = signable(json);
            sign_events(there, &mut json);
            json.to_string().into_bytes()
        }
        Err(_) => body,
    });
    let request = |body: Vec<u8>| Request::builder().method(method.clone()).uri(&made.path).body(body).unwrap();
    let body = body.unwrap_or_default();
    let input = || XMatrixSigningInput::new(there.name.clone(), here.name.clone(), there.cx.signer().key);
    let proof = XMatrix::sign_http_request(&request(body.clone()), input())
        .or_else(|_| XMatrix::sign_http_request(&request(Vec::new()), input()))
        .unwrap();
    let mut request = request(body).map(Body::from);
    request.headers_mut().insert(header::AUTHORIZATION, (&proof).into());
    request
}

async fn known(here: &Server, there: &Server, room_id: &RoomId, alice: &OwnedUserId, bob: &OwnedUserId) -> Known {
    let sent = here.says(alice, room_id, "hello").await;
    let witnesses = witnesses(there, room_id, bob).await;
    Known {
        user_id: bob.to_string(),
        other_user_id: alice.to_string(),
        room_id: room_id.to_string(),
        event_id: sent.event_id.to_string(),
        device_id: "D".to_owned(),
        media_id: "x".to_owned(),
        server_name: there.name.to_string(),
        witnesses: witnesses.iter().map(|event| event.pdu.event_id.to_string()).collect(),
    }
}

/// What is wrong with an answer, if anything.
fn fault(status: u16, body: &[u8]) -> Option<String> {
    let json = serde_json::from_slice::<Value>(body).unwrap_or_default();
    let is_known = json["errcode"].as_str().is_some_and(|code| !code.is_empty());
    // We cannot be at fault when a third server, which does not exist, does not answer.
    let is_fault = matches!(status, 500 | 501 | 503 | 505..) || (400..500).contains(&status) && !is_known;
    is_fault.then(|| format!("{status} {}", String::from_utf8_lossy(body)))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_of_another_server_is_our_fault() {
    std::panic::set_hook(Box::new(|info| {
        PANICS.fetch_add(1, Ordering::SeqCst);
        eprintln!("{info}");
    }));
    let scene = scene().await;
    let known = known(&scene.here, &scene.there, &scene.room_id, &scene.alice, &scene.bob).await;
    let app = homeserver::app(scene.here.services.clone());
    let runtime = tokio::runtime::Handle::current();
    let sweeping = async |scene: crate::hostile::Scene| {
        tokio::task::spawn_blocking(move || {
            let mut faults = Vec::new();
            for (method, path, _) in homeserver::routes::endpoints().served {
                if !path.starts_with("/_matrix/federation") && !path.starts_with("/_matrix/key") {
                    continue;
                }
                let method: Method = method.parse().unwrap();
                let cases = Config::default().cases / CASES_SHARE;
                let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
                let recipe = nonsense::recipe(path.matches('{').count(), method != Method::GET);
                let outcome = runner.run(&recipe, |recipe| {
                    let made = recipe.make(path, nonsense::usual_server_body(path), &known);
                    let request = signed(&scene.here, &scene.there, &method, &made);
                    let panics = PANICS.load(Ordering::SeqCst);
                    let (status, body) = runtime.block_on(async {
                        let answer = app.clone().oneshot(request).await.unwrap();
                        (answer.status().as_u16(), to_bytes(answer.into_body(), usize::MAX).await.unwrap())
                    });
                    if let Some(fault) = fault(status, &body) {
                        return Err(TestCaseError::fail(format!("{made:?}: {fault}")));
                    }
                    if PANICS.load(Ordering::SeqCst) > panics {
                        return Err(TestCaseError::fail(format!("{made:?}: a panic in the background")));
                    }
                    Ok(())
                });
                if let Err(problem) = outcome {
                    faults.push(format!("{method} {path}: {problem}"));
                }
            }
            (faults, scene)
        })
        .await
        .unwrap()
    };

    let (faults, scene) = sweeping(scene).await;

    assert!(faults.is_empty(), "{} endpoints:\n{}", faults.len(), faults.join("\n"));
    assert_eq!(PANICS.load(Ordering::SeqCst), 0);
    // An honest message still comes through.
    let honest = scene.forge(&message(&scene.bob, "after all that")).await;
    scene.here.services.incoming.transaction(&scene.there.name, "end", &[honest], &[]).await.unwrap();
    let heard = || async { scene.here.words_in(&scene.room_id).await.contains(&"after all that".to_owned()) };
    scene.here.until("the honest message came", heard).await;
}
