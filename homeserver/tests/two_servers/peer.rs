//! A server that is not ours, written here: it signs whatever it is told to and answers what a test wants.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, OnceLock},
};

use axum::{
    Json, Router,
    extract::{Path, Query},
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::{get, post, put},
};
use room::versions::{self, Rules};
use ruma::{
    CanonicalJsonObject, OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, RoomVersionId,
    signatures::{hash_and_sign_event, reference_hash},
};
use serde_json::{
    Value, json,
    value::{RawValue, to_raw_value},
};
use services::federation::signing::SigningKey;
use tokio::sync::Notify;

use crate::{
    impostors::key_answer,
    server::{Authority, Server},
};

/// An event the server made.
#[derive(Clone)]
pub(crate) struct Made {
    pub(crate) id: String,
    pub(crate) json: Box<RawValue>,
}

/// What an event is to say.
pub(crate) struct Wish<'a> {
    pub(crate) kind: &'a str,
    pub(crate) state_key: Option<&'a str>,
    pub(crate) content: Value,
    /// The events before it.
    pub(crate) prev: &'a [&'a str],
    /// Its place among them.
    pub(crate) depth: u64,
}

/// What it answers.
#[derive(Default)]
pub(crate) struct Answers {
    /// To `get_missing_events`.
    pub(crate) missing: Vec<Made>,
    /// To `state_ids`, by event: the state before it.
    pub(crate) states: BTreeMap<String, Vec<String>>,
    /// To `event`, by id.
    pub(crate) events: BTreeMap<String, Made>,
    /// How often it was asked for a gap.
    pub(crate) gaps_asked: usize,
    /// The events whose state was asked for.
    pub(crate) states_asked: Vec<String>,
    /// Rung with each question.
    asked: Arc<Notify>,
}

/// The server, with Eve, a user in a room of another.
pub(crate) struct Peer {
    pub(crate) name: OwnedServerName,
    pub(crate) eve: OwnedUserId,
    key: SigningKey,
    pub(crate) answers: Arc<Mutex<Answers>>,
    rules: &'static Rules,
    room_id: OwnedRoomId,
    /// Create event, power levels, join rules.
    witnesses: Vec<String>,
    /// Eve's join.
    pub(crate) join: String,
}

fn routes(answers: &Arc<Mutex<Answers>>, keys: &Arc<OnceLock<Value>>) -> Router {
    let (keys, missing, states, events) =
        (Arc::clone(keys), Arc::clone(answers), Arc::clone(answers), Arc::clone(answers));
    let not_found = || (StatusCode::NOT_FOUND, Json(json!({ "errcode": "M_NOT_FOUND", "error": "" }))).into_response();
    Router::new()
        .route("/_matrix/key/v2/server", get(move || async move { Json(keys.get().cloned()) }))
        .route("/_matrix/federation/v1/send/{txn}", put(|| async { Json(json!({ "pdus": {} })) }))
        .route(
            "/_matrix/federation/v1/get_missing_events/{room}",
            post(move || async move {
                let mut answers = missing.lock().unwrap();
                answers.gaps_asked += 1;
                answers.asked.notify_one();
                let events: Vec<_> = answers.missing.iter().map(|made| made.json.clone()).collect();
                Json(json!({ "events": events }))
            }),
        )
        .route(
            "/_matrix/federation/v1/state_ids/{room}",
            get(move |Query(query): Query<BTreeMap<String, String>>| async move {
                let mut answers = states.lock().unwrap();
                answers.states_asked.push(query["event_id"].clone());
                answers.asked.notify_one();
                match answers.states.get(&query["event_id"]) {
                    Some(ids) => Json(json!({ "pdu_ids": ids, "auth_chain_ids": [] })).into_response(),
                    None => not_found(),
                }
            }),
        )
        .route(
            "/_matrix/federation/v1/event/{event}",
            get(move |Path(id): Path<String>| async move {
                let answer: Response = match events.lock().unwrap().events.get(&id) {
                    Some(made) => {
                        let pdus = [made.json.clone()];
                        Json(json!({ "origin": "there", "origin_server_ts": 1, "pdus": pdus })).into_response()
                    }
                    None => not_found(),
                };
                answer
            }),
        )
        .fallback(move || async move { not_found() })
}

impl Peer {
    /// Start, and let Eve into a room of `here`.
    pub(crate) async fn in_room_of(authority: &Authority, here: &Server, room_id: &RoomId) -> Self {
        let (answers, keys) = (Arc::<Mutex<Answers>>::default(), Arc::<OnceLock<Value>>::default());
        let name = authority.impostor(routes(&answers, &keys));
        let key = SigningKey::generate(&here.cx.randomness).unwrap().2;
        keys.set(key_answer(here, name.as_str(), &key, &key)).unwrap();
        let now = here.services.timeline.room(room_id).await.unwrap();
        let mut witnesses = Vec::new();
        for kind in ["m.room.create", "m.room.power_levels", "m.room.join_rules"] {
            let event = here.services.timeline.state_event(&now, kind, "").await.unwrap().unwrap();
            let is_named = kind != "m.room.create" || now.version != RoomVersionId::V12;
            witnesses.extend(is_named.then(|| event.pdu.event_id.to_string()));
        }
        let mut peer = Self {
            eve: format!("@eve:{name}").try_into().unwrap(),
            name,
            key,
            answers,
            rules: versions::rules(&now.version).unwrap(),
            room_id: room_id.to_owned(),
            witnesses,
            join: String::new(),
        };
        let (heads, depth) = now.next_place();
        let heads: Vec<&str> = heads.iter().map(|id| id.as_str()).collect();
        let join = peer.member(&json!({ "membership": "join" }), &heads, depth);
        let event_id = join.id.as_str().try_into().unwrap();
        let membership = ruma::events::room::member::MembershipState::Join;
        here.services.resident.enter(&peer.name, room_id, event_id, &join.json, membership).await.unwrap();
        peer.join = join.id;
        peer
    }

    /// An event of Eve's, signed.
    pub(crate) fn make(&self, wish: &Wish<'_>) -> Made {
        let mut auth: Vec<&str> = self.witnesses.iter().map(String::as_str).collect();
        auth.extend(Some(self.join.as_str()).filter(|join| !join.is_empty()));
        if wish.kind != "m.room.member" {
            // Join rules vouch for memberships alone.
            auth.remove(auth.len() - 2);
        }
        let mut event = json!({
            "type": wish.kind, "room_id": self.room_id, "sender": self.eve, "content": wish.content, "depth": wish.depth,
            "origin_server_ts": 1_000_000 + wish.depth, "prev_events": wish.prev, "auth_events": auth,
        });
        if let Some(key) = wish.state_key {
            event["state_key"] = key.into();
        }
        let mut object: CanonicalJsonObject = serde_json::from_value(event).unwrap();
        hash_and_sign_event(self.name.as_str(), self.key.pair(), &mut object, &self.rules.redaction).unwrap();
        let id = format!("${}", reference_hash(&object, self.rules).unwrap());
        Made { id, json: to_raw_value(&object).unwrap() }
    }

    /// What Eve says.
    pub(crate) fn message(&self, words: &str, prev: &[&str], depth: u64) -> Made {
        let content = json!({ "msgtype": "m.text", "body": words });
        self.make(&Wish { kind: "m.room.message", state_key: None, content, prev, depth })
    }

    /// Eve's member event.
    pub(crate) fn member(&self, content: &Value, prev: &[&str], depth: u64) -> Made {
        let (eve, content) = (self.eve.clone(), content.clone());
        self.make(&Wish { kind: "m.room.member", state_key: Some(eve.as_str()), content, prev, depth })
    }

    /// Waits until it was asked enough.
    pub(crate) async fn until(&self, enough: impl Fn(&Answers) -> bool) {
        let asked = Arc::clone(&self.answers.lock().unwrap().asked);
        let waited = tokio::time::timeout(std::time::Duration::from_secs(30), async {
            while !enough(&self.answers.lock().unwrap()) {
                asked.notified().await;
            }
        });
        assert!(waited.await.is_ok(), "{} was not asked", self.name);
    }

    /// Send an event to `here`.
    pub(crate) async fn sends(&self, here: &Server, event: &Made) {
        let events = std::slice::from_ref(&event.json);
        let outcomes = here.services.incoming.transaction(&self.name, &event.id, events, &[]).await.unwrap();
        assert!(outcomes.values().all(Result::is_ok), "{outcomes:?}");
    }
}
