//! Users of the servers, and what they do.

use std::sync::Arc;

use axum::{body::Body, http::Request};
use tower::ServiceExt as _;

use room::build::Draft;
use ruma::{OwnedRoomId, OwnedUserId, RoomId, RoomVersionId, UserId, serde::JsonObject};
use serde_json::{Value, json, value::to_raw_value};
use services::{
    Result,
    timeline::{Sent, Wish, events::Stored, now::RoomNow},
};
use storage::invitations::Invitation;

use crate::server::Server;

fn state(kind: &str, key: &str, sender: &UserId, content: &Value) -> Wish {
    Draft::state(kind, key, sender.to_owned(), to_raw_value(content).unwrap()).into()
}

/// Who registered, with their access token.
pub(crate) struct Account {
    pub(crate) id: OwnedUserId,
    pub(crate) device: String,
    token: String,
}

/// The content of a member event without its membership.
pub(crate) fn plain() -> JsonObject {
    JsonObject::new()
}

impl Server {
    /// A user of this server, who has an account.
    pub(crate) async fn user(&self, name: &str) -> OwnedUserId {
        let user_id = UserId::parse(format!("@{name}:{}", self.name)).unwrap();
        let user_nid = self.cx.numbers.user(&user_id).await.unwrap();
        let mut tx = self.cx.store.begin().await.unwrap();
        let account = storage::accounts::Account {
            user_nid,
            password: None,
            created_ms: 0,
            deactivated_ms: None,
            is_erased: false,
            is_admin: false,
            is_locked: false,
            is_suspended: false,
            is_guest: false,
            appservice: None,
        };
        storage::accounts::create(&mut tx, &account).await.unwrap();
        tx.commit().await.unwrap();
        user_id
    }

    /// Somebody who registered like anybody, with a device.
    pub(crate) async fn account(&self, name: &str) -> Account {
        let body = json!({ "username": name, "password": "pass word 1", "auth": { "type": "m.login.dummy" } });
        let reply = self.asked("POST", "v3/register", None, &body).await;
        let text = |field: &str| reply[field].as_str().unwrap_or_else(|| panic!("{reply}")).to_owned();
        Account { id: text("user_id").try_into().unwrap(), device: text("device_id"), token: text("access_token") }
    }

    /// A client's request, answered with success.
    pub(crate) async fn asked(&self, method: &str, path: &str, account: Option<&Account>, body: &Value) -> Value {
        let (status, reply) = self.answers(method, path, account, body).await;
        assert!((200..300).contains(&status), "{path}: {status} {reply}");
        reply
    }

    /// A client's request, and the status and body of the answer.
    pub(crate) async fn answers(
        &self,
        method: &str,
        path: &str,
        account: Option<&Account>,
        body: &Value,
    ) -> (u16, Value) {
        let mut request = Request::builder().method(method).uri(format!("/_matrix/client/{path}"));
        if let Some(account) = account {
            request = request.header("authorization", format!("Bearer {}", account.token));
        }
        let request = request.body(Body::from(body.to_string())).unwrap();
        let reply = homeserver::app(self.services.clone()).oneshot(request).await.unwrap();
        let status = reply.status().as_u16();
        let body = axum::body::to_bytes(reply.into_body(), 1 << 20).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }

    /// Notices that another server does not answer.
    pub(crate) async fn finds_away(&self, other: &Server) {
        let request = ruma::api::federation::discovery::get_server_version::v1::Request::new();
        let client = self.services.federation.client();
        let answer = client.send_open(&other.name, request, services::federation::client::Terms::BRIEF.at_once()).await;
        assert!(answer.is_err(), "{} answers", other.name);
        assert!(client.health().of(&other.name).is_some(), "{} has not noticed", self.name);
    }

    /// A room `creator` made and is in, with this join rule and history for members from the beginning.
    pub(crate) async fn room(&self, creator: &UserId, version: RoomVersionId, join_rule: &str) -> OwnedRoomId {
        let room_id = RoomId::new_v1(&self.name);
        let content = json!({ "room_version": version, "creator": creator });
        let create = Draft::state("m.room.create", "", creator.to_owned(), to_raw_value(&content).unwrap());
        let levels = match version {
            RoomVersionId::V12 => json!({}),
            _ => json!({ "users": { creator.as_str(): 100 } }),
        };
        let now = self
            .services
            .timeline
            .create(&version, create, Some(room_id), |_| {
                vec![
                    state("m.room.member", creator.as_str(), creator, &json!({ "membership": "join" })),
                    state("m.room.power_levels", "", creator, &levels),
                    state("m.room.join_rules", "", creator, &json!({ "join_rule": join_rule })),
                    state("m.room.history_visibility", "", creator, &json!({ "history_visibility": "shared" })),
                ]
            })
            .await
            .unwrap();
        now.room_id.clone()
    }

    pub(crate) async fn says(&self, user: &UserId, room_id: &RoomId, words: &str) -> Sent {
        let content = to_raw_value(&json!({ "msgtype": "m.text", "body": words })).unwrap();
        let draft = Draft::message("m.room.message", user.to_owned(), content);
        let nid = self.services.timeline.room_nid(room_id).await.unwrap();
        self.services.timeline.append(nid, draft).await.unwrap()
    }

    pub(crate) async fn sets(&self, user: &UserId, room_id: &RoomId, kind: &str, key: &str, content: Value) -> Sent {
        let nid = self.services.timeline.room_nid(room_id).await.unwrap();
        self.services.timeline.append(nid, state(kind, key, user, &content)).await.unwrap()
    }

    pub(crate) async fn joins(&self, user: &UserId, room_id: &RoomId, via: &Server) -> Result<Arc<RoomNow>> {
        self.services.joining.join(user, room_id, std::slice::from_ref(&via.name), &plain()).await
    }

    /// What a user was invited to or knocks at.
    pub(crate) async fn invitation(&self, user: &UserId, room_id: &RoomId) -> Option<Invitation> {
        let user_nid = self.cx.numbers.user(user).await.unwrap();
        let mut tx = self.cx.store.read().await.unwrap();
        storage::invitations::one(&mut tx, user_nid, room_id.as_str()).await.unwrap()
    }

    /// Type, state key and event of a room's current state, in order.
    pub(crate) async fn state_of(&self, room_id: &RoomId) -> Vec<(String, String, String)> {
        let now = self.services.timeline.room(room_id).await.unwrap();
        let events = self.services.timeline.state_events(&now.snapshot).await.unwrap();
        let mut state: Vec<_> = events
            .iter()
            .map(|e| (e.pdu.kind.clone(), e.pdu.state_key.clone().unwrap(), e.pdu.event_id.to_string()))
            .collect();
        state.sort();
        state
    }

    /// Everything clients could page to, the earliest first.
    pub(crate) async fn history_of(&self, room_id: &RoomId) -> Vec<Arc<Stored>> {
        let nid = self.services.timeline.room_nid(room_id).await.unwrap();
        let rows =
            storage::events::after(&mut self.cx.store.read().await.unwrap(), nid, (-1, 0), 10_000).await.unwrap();
        self.services.timeline.events.read(rows).await.unwrap()
    }

    /// What has been said in a room, the earliest first.
    pub(crate) async fn words_in(&self, room_id: &RoomId) -> Vec<String> {
        let history = self.history_of(room_id).await;
        let messages = history.iter().filter(|event| event.pdu.kind == "m.room.message");
        messages.map(|event| room::auth::facts::field(&event.pdu.content, "body").unwrap_or_default()).collect()
    }

    /// Waits until `holds` is true of this server, looking whenever something changes.
    pub(crate) async fn until<F: Future<Output = bool>>(&self, what: &str, holds: impl Fn() -> F) {
        let bell = Arc::new(tokio::sync::Notify::new());
        let ring = Arc::clone(&bell);
        self.cx.notify.on_change(move |_| ring.notify_one());
        let waited = tokio::time::timeout(std::time::Duration::from_secs(30), async {
            while !holds().await {
                bell.notified().await;
            }
        });
        assert!(waited.await.is_ok(), "{} never saw that {what}", self.name);
    }
}
