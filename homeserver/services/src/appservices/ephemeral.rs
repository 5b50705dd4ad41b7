//! What an application service is told that is not in a room's history: typing, receipts, presence.
//!
//! Receipts have positions, so none is lost; typing and presence are news of the moment, and what an application service that is
//! away does not hear of them it never will.
//! Source: Application Service API, "Pushing ephemeral data".

use std::collections::BTreeMap;

use ruma::UserId;
use serde_json::{Value, json};
use storage::{members, receipts};

use super::interest::Interest;
use crate::{Context, Result, presence::Seen};

/// Rooms or users whose news wait for one application service; beyond it the oldest picture goes.
const WAITING_MAX: usize = 10_000;
/// Receipts in one transaction.
const RECEIPTS_MAX: i64 = 1000;

/// News of the moment: the newest picture of each room and user.
#[derive(Debug, Default)]
pub(super) struct Moment {
    /// Room → who types there now.
    typing: BTreeMap<i64, Vec<i64>>,
    /// User → their presence, JSON of [`Seen`].
    presence: BTreeMap<i64, String>,
}

impl Moment {
    /// Who types in a room changed.
    pub(super) fn typing(&mut self, room_nid: i64, user_nids: &[i64]) {
        self.typing.insert(room_nid, user_nids.to_vec());
        if self.typing.len() > WAITING_MAX {
            self.typing.pop_first();
        }
    }

    /// Presence of users changed.
    pub(super) fn presence(&mut self, users: &[(i64, String)]) {
        for (user_nid, seen) in users {
            self.presence.insert(*user_nid, seen.clone());
        }
        while self.presence.len() > WAITING_MAX {
            self.presence.pop_first();
        }
    }

    /// Nothing new.
    pub(super) fn is_empty(&self) -> bool {
        self.typing.is_empty() && self.presence.is_empty()
    }

    /// As the application service reads it, as far as it concerns it.
    pub(super) async fn render(self, cx: &Context, interest: &Interest, rooms: &impl RoomIds) -> Result<Vec<Value>> {
        let mut news = Vec::new();
        for (room_nid, user_nids) in self.typing {
            if interest.has_room(room_nid).await? {
                let names = cx.numbers.user_names(&user_nids).await?;
                let user_ids: Vec<&str> =
                    user_nids.iter().filter_map(|nid| names.get(nid).map(|name| &**name)).collect();
                let room_id = rooms.room_id(room_nid).await?;
                news.push(json!({ "type": "m.typing", "room_id": room_id, "content": { "user_ids": user_ids } }));
            }
        }
        let user_nids: Vec<i64> = self.presence.keys().copied().collect();
        let names = cx.numbers.user_names(&user_nids).await?;
        for (user_nid, seen) in self.presence {
            let (Some(name), Ok(seen)) = (names.get(&user_nid), serde_json::from_str::<Seen>(&seen)) else { continue };
            if sees(cx, interest, user_nid, name).await? {
                news.push(presence_event(cx, name, &seen));
            }
        }
        Ok(news)
    }
}

/// Tells a room's id.
pub(super) trait RoomIds {
    /// Of this number.
    async fn room_id(&self, room_nid: i64) -> Result<String>;
}

impl RoomIds for crate::timeline::Timeline {
    async fn room_id(&self, room_nid: i64) -> Result<String> {
        Ok(self.now(room_nid).await?.room_id.to_string())
    }
}

/// Whether a user's presence concerns an application service: one of its users, or one who is in a room with it.
async fn sees(cx: &Context, interest: &Interest, user_nid: i64, name: &str) -> Result<bool> {
    if <&UserId>::try_from(name).is_ok_and(|user| interest.has_user(user)) {
        return Ok(true);
    }
    let rooms = members::rooms_of(&mut cx.store.read().await?, user_nid, "join").await?;
    for room_nid in rooms {
        if interest.has_room(room_nid).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn presence_event(cx: &Context, name: &str, seen: &Seen) -> Value {
    let mut content = json!({ "presence": seen.presence, "currently_active": seen.currently_active });
    if seen.last_active_ms > 0 {
        content["last_active_ago"] = cx.clock.now_ms().saturating_sub(seen.last_active_ms).into();
    }
    if let Some(status) = &seen.status_msg {
        content["status_msg"] = status.as_str().into();
    }
    json!({ "type": "m.presence", "sender": name, "content": content })
}

/// Receipts of positions `since < pos <= until` that concern an application service, an event for each room and
/// thread.
pub(super) async fn receipts(
    cx: &Context,
    interest: &Interest,
    rooms: &impl RoomIds,
    (since, until): (i64, i64),
) -> Result<Vec<Value>> {
    let mut tx = cx.store.read().await?;
    let found = receipts::between(&mut tx, since, until, RECEIPTS_MAX).await?;
    drop(tx);
    let user_nids: Vec<i64> = found.iter().map(|receipt| receipt.user_nid).collect();
    let names = cx.numbers.user_names(&user_nids).await?;
    let mut contents: BTreeMap<(i64, String), Value> = BTreeMap::new();
    for receipt in found {
        let Some(name) = names.get(&receipt.user_nid) else { continue };
        let is_own = <&UserId>::try_from(&**name).is_ok_and(|user| interest.has_user(user));
        let is_private = receipt.kind != "m.read";
        if !is_own && (is_private || !interest.has_room(receipt.room_nid).await?) {
            continue;
        }
        let mut data = json!({ "ts": receipt.ts });
        if !receipt.thread.is_empty() {
            data["thread_id"] = receipt.thread.as_str().into();
        }
        let content = contents.entry((receipt.room_nid, receipt.thread)).or_insert_with(|| json!({}));
        content[&receipt.event_id][&receipt.kind][&**name] = data;
    }
    let mut news = Vec::with_capacity(contents.len());
    for ((room_nid, _), content) in contents {
        news.push(json!({ "type": "m.receipt", "room_id": rooms.room_id(room_nid).await?, "content": content }));
    }
    Ok(news)
}
