//! What the homeserver pushes to us, and the other questions of the application service API.
//!
//! Source: Application Service API. The homeserver proves itself by `hs_token` in the `Authorization` header; tokens in
//! the query string, which the specification once allowed, are not read.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, Request, State},
    http::{StatusCode, header::AUTHORIZATION},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::{get, post, put},
};
use serde::Deserialize;
use serde_json::{Value, json};
use subtle::ConstantTimeEq as _;

use crate::{room::access::StateEvent, switchboard::Switchboard};

/// Largest transaction, bytes: a hundred events of the largest size, and a half more.
const TRANSACTION_BYTES_MAX: usize = 10 << 20;
/// Transactions remembered so that a repeated one has no effect.
const SEEN_MAX: usize = 1_000;

#[derive(Clone)]
struct Api {
    switchboard: Arc<Switchboard>,
    hs_token: Arc<str>,
    own_user_id: Arc<str>,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    ids: HashSet<String>,
    order: VecDeque<String>,
}

impl Seen {
    /// Whether the id is new.
    fn note(&mut self, id: &str) -> bool {
        if !self.ids.insert(id.to_owned()) {
            return false;
        }
        self.order.push_back(id.to_owned());
        if self.order.len() > SEEN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        true
    }
}

/// The routes under `/_matrix/app/v1`.
pub(crate) fn routes(switchboard: Arc<Switchboard>, hs_token: &str, own_user_id: &str) -> Router {
    let api = Api { switchboard, hs_token: hs_token.into(), own_user_id: own_user_id.into(), seen: Arc::default() };
    Router::new()
        .route("/_matrix/app/v1/transactions/{txnId}", put(transaction))
        .route("/_matrix/app/v1/ping", post(|| async { Json(json!({})) }))
        .route("/_matrix/app/v1/users/{userId}", get(user))
        .route("/_matrix/app/v1/rooms/{alias}", get(|| async { not_found() }))
        .layer(DefaultBodyLimit::max(TRANSACTION_BYTES_MAX))
        .route_layer(middleware::from_fn_with_state(api.clone(), authenticate))
        .with_state(api)
}

async fn authenticate(State(api): State<Api>, request: Request, next: Next) -> Response {
    let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let Some(token) = header.and_then(|value| value.strip_prefix("Bearer ")) else {
        return refusal(StatusCode::UNAUTHORIZED, "M_MISSING_TOKEN", "no token");
    };
    // An empty token of ours would let everyone in.
    let equal: bool = token.as_bytes().ct_eq(api.hs_token.as_bytes()).into();
    if !equal || api.hs_token.is_empty() {
        return refusal(StatusCode::FORBIDDEN, "M_FORBIDDEN", "not the token of the homeserver");
    }
    next.run(request).await
}

#[derive(Deserialize)]
struct Transaction {
    events: Vec<Value>,
}

async fn transaction(State(api): State<Api>, Path(id): Path<String>, body: Bytes) -> Response {
    let Ok(transaction) = serde_json::from_slice::<Transaction>(&body) else {
        return refusal(StatusCode::BAD_REQUEST, "M_BAD_JSON", "not a transaction");
    };
    let is_new = api.seen.lock().unwrap_or_else(PoisonError::into_inner).note(&id);
    if is_new {
        for event in transaction.events {
            let room_id = event["room_id"].as_str().map(ToOwned::to_owned);
            // Events that are not state, and those of other shapes, are other people's business.
            if let (Some(room_id), Ok(event)) = (room_id, serde_json::from_value::<StateEvent>(event)) {
                api.switchboard.state_event(&room_id, &event);
            }
        }
    }
    Json(json!({})).into_response()
}

async fn user(State(api): State<Api>, Path(user_id): Path<String>) -> Response {
    if user_id == *api.own_user_id { Json(json!({})).into_response() } else { not_found() }
}

fn not_found() -> Response {
    refusal(StatusCode::NOT_FOUND, "M_NOT_FOUND", "not ours")
}

fn refusal(status: StatusCode, errcode: &str, error: &str) -> Response {
    (status, Json(json!({"errcode": errcode, "error": error}))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_transaction_is_known_and_the_oldest_are_forgotten() {
        let mut seen = Seen::default();

        assert!(seen.note("first"));
        assert!(!seen.note("first"));
        for n in 0..SEEN_MAX {
            assert!(seen.note(&n.to_string()));
        }

        assert!(seen.note("first"));
        assert_eq!(seen.ids.len(), SEEN_MAX);
    }
}
