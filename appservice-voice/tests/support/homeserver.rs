//! A stand-in for whatever homeserver the service is beside: just the five endpoints that it uses, and a room or two.
//!
//! Tokens are names: `token-alice` is Alice's access token, `openid-alice` her OpenID token.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch};

pub(crate) const SERVER_NAME: &str = "example.org";
pub(crate) const AS_TOKEN: &str = "as-secret";
pub(crate) const CALL_MEMBER: &str = "org.matrix.msc3401.call.member";

#[derive(Clone)]
pub(crate) struct Homeserver {
    pub(crate) url: String,
    inner: Arc<Inner>,
}

struct Inner {
    /// State events by room.
    rooms: Mutex<HashMap<String, Vec<Value>>>,
    changed: watch::Sender<u64>,
    /// How many writes to refuse with 500 before one is taken.
    failing: AtomicU32,
    /// Whether the application service may read state in its own name.
    reads_as_service: bool,
}

pub(crate) fn user_id(name: &str) -> String {
    format!("@{name}:{SERVER_NAME}")
}

pub(crate) fn state_event(kind: &str, state_key: &str, sender: &str, content: Value) -> Value {
    json!({"type": kind, "state_key": state_key, "sender": sender, "origin_server_ts": 1, "content": content})
}

impl Homeserver {
    pub(crate) async fn start() -> Self {
        Self::starting(true).await
    }

    /// One that does not know that services may read state: only its users may.
    pub(crate) async fn start_strict() -> Self {
        Self::starting(false).await
    }

    async fn starting(reads_as_service: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let inner = Arc::new(Inner {
            rooms: Mutex::default(),
            changed: watch::Sender::new(0),
            failing: AtomicU32::new(0),
            reads_as_service,
        });
        let router = Router::new()
            .route("/_matrix/client/v3/account/whoami", get(whoami))
            .route("/_matrix/federation/v1/openid/userinfo", get(userinfo))
            .route("/_matrix/client/v3/rooms/{room}/state", get(read_state))
            .route("/_matrix/client/v3/rooms/{room}/state/{kind}/{key}", axum::routing::put(put_state))
            .with_state(inner.clone());
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, inner }
    }

    /// A voice room made by Mod in which everyone named has joined.
    pub(crate) fn voice_room(&self, room: &str, names: &[&str]) {
        let moderator = user_id("mod");
        let mut state = vec![
            state_event("m.room.create", "", &moderator, json!({"type": "org.voicechat.voice", "room_version": "11"})),
            state_event("m.room.power_levels", "", &moderator, json!({"users": {&moderator: 50}})),
        ];
        for name in names {
            let user_id = if name.starts_with('@') { (*name).to_owned() } else { user_id(name) };
            state.push(state_event("m.room.member", &user_id, &user_id, json!({"membership": "join"})));
        }
        self.inner.rooms.lock().unwrap().insert(room.to_owned(), state);
    }

    pub(crate) fn put(&self, room: &str, event: Value) {
        let mut rooms = self.inner.rooms.lock().unwrap();
        let state = rooms.entry(room.to_owned()).or_default();
        state.retain(|old| old["type"] != event["type"] || old["state_key"] != event["state_key"]);
        state.push(event);
        drop(rooms);
        self.inner.changed.send_modify(|version| *version += 1);
    }

    pub(crate) fn fail_writes(&self, times: u32) {
        self.inner.failing.store(times, Ordering::SeqCst);
    }

    /// The state keys of the call memberships that stand in a room.
    pub(crate) fn calling(&self, room: &str) -> Vec<String> {
        let rooms = self.inner.rooms.lock().unwrap();
        let standing = rooms.get(room).into_iter().flatten().filter(|event| event["type"] == CALL_MEMBER);
        let standing = standing.filter(|event| event["content"] != json!({}));
        standing.map(|event| event["state_key"].as_str().unwrap().to_owned()).collect()
    }

    pub(crate) fn content(&self, room: &str, kind: &str, state_key: &str) -> Option<Value> {
        let rooms = self.inner.rooms.lock().unwrap();
        let event = rooms.get(room)?.iter().find(|event| event["type"] == kind && event["state_key"] == state_key)?;
        Some(event["content"].clone())
    }

    /// Wait until the memberships of a room are these.
    pub(crate) async fn calling_becomes(&self, room: &str, wanted: &[&str]) {
        let mut changes = self.inner.changed.subscribe();
        let reached = async {
            while self.calling(room) != wanted {
                changes.changed().await.unwrap();
            }
        };
        let patience = std::time::Duration::from_secs(20);
        tokio::time::timeout(patience, reached)
            .await
            .unwrap_or_else(|_| panic!("{:?} are in the call", self.calling(room)));
    }
}

fn bearer(headers: &HeaderMap) -> &str {
    headers.get("authorization").and_then(|value| value.to_str().ok()?.strip_prefix("Bearer ")).unwrap_or("")
}

fn refused(status: StatusCode, errcode: &str) -> Response {
    (status, Json(json!({"errcode": errcode, "error": "no"}))).into_response()
}

async fn whoami(headers: HeaderMap) -> Response {
    match bearer(&headers).strip_prefix("token-") {
        Some(name) => Json(json!({"user_id": user_id(name), "device_id": format!("{name}-phone")})).into_response(),
        None => refused(StatusCode::UNAUTHORIZED, "M_UNKNOWN_TOKEN"),
    }
}

async fn userinfo(Query(query): Query<HashMap<String, String>>) -> Response {
    match query.get("access_token").and_then(|token| token.strip_prefix("openid-")) {
        Some(name) => Json(json!({"sub": user_id(name)})).into_response(),
        None => refused(StatusCode::UNAUTHORIZED, "M_UNKNOWN_TOKEN"),
    }
}

async fn read_state(
    State(inner): State<Arc<Inner>>,
    Path(room): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    if bearer(&headers) != AS_TOKEN || (!inner.reads_as_service && !query.contains_key("user_id")) {
        return refused(StatusCode::FORBIDDEN, "M_FORBIDDEN");
    }
    match inner.rooms.lock().unwrap().get(&room) {
        Some(state) => Json(state.clone()).into_response(),
        None => refused(StatusCode::FORBIDDEN, "M_FORBIDDEN"),
    }
}

async fn put_state(
    State(inner): State<Arc<Inner>>,
    Path((room, kind, key)): Path<(String, String, String)>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
    Json(content): Json<Value>,
) -> Response {
    let Some(sender) = query.get("user_id").filter(|_| bearer(&headers) == AS_TOKEN) else {
        return refused(StatusCode::FORBIDDEN, "M_FORBIDDEN");
    };
    if inner.failing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
        return refused(StatusCode::INTERNAL_SERVER_ERROR, "M_UNKNOWN");
    }
    let event = state_event(&kind, &key, sender, content);
    Homeserver { url: String::new(), inner }.put(&room, event);
    Json(json!({"event_id": "$event"})).into_response()
}
