//! What ephemeral units say.

use std::{collections::HashMap, sync::Arc};

use ruma::{
    OwnedUserId, RoomId, UInt, UserId,
    api::federation::transactions::edu::{Edu, PresenceContent, PresenceUpdate, TypingContent},
};
use serde_json::{
    json,
    value::{RawValue, to_raw_value},
};
use storage::receipts::Receipt;

use crate::presence::Shown;

/// An EDU, written.
pub(super) type Unit = Arc<RawValue>;

pub(super) fn raw(edu: &Edu) -> Option<Unit> {
    to_raw_value(edu).ok().map(Arc::from)
}

pub(super) fn typing(room_id: &RoomId, user: &str, is_typing: bool) -> Option<Unit> {
    let user: OwnedUserId = UserId::parse(user).ok()?;
    raw(&Edu::Typing(TypingContent::new(room_id.to_owned(), user, is_typing)))
}

pub(super) fn presence(user: &str, shown: Shown) -> Option<Unit> {
    let ago = UInt::new_saturating(shown.active_ago_ms.unwrap_or(0));
    let mut update = PresenceUpdate::new(UserId::parse(user).ok()?, shown.presence, ago);
    update.status_msg = shown.status_msg;
    update.currently_active = shown.currently_active;
    raw(&Edu::Presence(PresenceContent::new(vec![update])))
}

/// Receipts of one room. A unit has one receipt for each user, so threads need one each.
pub(super) fn receipts(room_id: &RoomId, receipts: &[Receipt], names: &HashMap<i64, Arc<str>>) -> Vec<Unit> {
    let units = receipts.iter().filter_map(|receipt| {
        let user = names.get(&receipt.user_nid)?;
        let mut data = json!({ "ts": receipt.ts });
        if !receipt.thread.is_empty() {
            data["thread_id"] = receipt.thread.as_str().into();
        }
        let read = json!({ &**user: { "data": data, "event_ids": [receipt.event_id] } });
        let unit = json!({ "edu_type": "m.receipt", "content": { room_id.as_str(): { "m.read": read } } });
        to_raw_value(&unit).ok().map(Arc::from)
    });
    units.collect()
}
