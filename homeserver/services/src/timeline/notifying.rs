//! Whom an event notifies.
//!
//! What notifies everybody with default rules is counted by the room's sequence alone, one number for all members; only what goes
//! beyond it (a highlight, a member whose own rules differ) is written for the user concerned.

use std::sync::Arc;

use room::auth::facts;
use ruma::UserId;
use serde::Deserialize;
use storage::timeline::PushItem;

use super::{Timeline, events::Stored, now::RoomNow};
use crate::Result;

/// Users a single event may mention by name; more are not highlighted.
const MENTIONS_MAX: usize = 100;
/// The push actions of a mention, as the default rules give them.
const MENTION_ACTIONS: &str = r#"["notify",{"set_tweak":"sound","value":"default"},{"set_tweak":"highlight"}]"#;

/// `m.mentions` of a content.
#[derive(Debug, Default, Deserialize)]
struct Mentions {
    #[serde(default)]
    user_ids: Vec<String>,
    #[serde(default)]
    room: bool,
}

/// Whom an event notifies.
#[derive(Debug, Default)]
pub(super) struct Notified {
    /// Everybody with default rules.
    pub by_default: bool,
    /// User, what they count beyond the default, whether it is a highlight.
    exceptions: Vec<(i64, i64, bool)>,
}

impl Notified {
    /// As rows.
    pub(super) fn items(&self, event: &Stored, thread_nid: i64) -> Vec<PushItem> {
        self.exceptions
            .iter()
            .map(|(user_nid, notify, highlight)| PushItem {
                user_nid: *user_nid,
                room_nid: event.room_nid,
                event_nid: event.nid,
                thread_nid,
                notify: *notify,
                highlight: *highlight,
                actions: if *highlight { MENTION_ACTIONS } else { r#"["notify"]"# }.to_owned(),
            })
            .collect()
    }
}

impl Timeline {
    /// Whom an event notifies that is about to be accepted in `now`.
    pub(super) async fn notified(&self, now: &RoomNow, event: &Arc<Stored>, sender_nid: i64) -> Result<Notified> {
        let pdu = &event.pdu;
        let by_default = match pdu.kind.as_str() {
            "m.room.message" => {
                facts::field::<String>(&pdu.content, "msgtype").is_none_or(|kind| kind != "m.notice")
                    && !is_edit(&pdu.content)
            }
            "m.room.encrypted" | "m.call.invite" => pdu.state_key.is_none() && !is_edit(&pdu.content),
            _ => false,
        };
        let mut notified = Notified { by_default, exceptions: Vec::new() };
        let mentions: Mentions = facts::field(&pdu.content, "m.mentions").unwrap_or_default();
        if is_edit(&pdu.content) || now.inhabitants.local.is_empty() {
            return Ok(notified);
        }
        let beyond = i64::from(!by_default);
        if mentions.room && self.powers(now).await?.can_notify(&pdu.sender, "room") {
            let others = now.inhabitants.local.iter().filter(|nid| **nid != sender_nid);
            notified.exceptions = others.map(|nid| (*nid, beyond, true)).collect();
            return Ok(notified);
        }
        for user in mentions.user_ids.iter().take(MENTIONS_MAX) {
            let Ok(user) = <&UserId>::try_from(user.as_str()) else { continue };
            if !self.cx.is_local(user) {
                continue;
            }
            if let Some(nid) = self.cx.numbers.user_if_known(user).await?
                && nid != sender_nid
                && now.has_local(nid)
                && !notified.exceptions.iter().any(|e| e.0 == nid)
            {
                notified.exceptions.push((nid, beyond, true));
            }
        }
        Ok(notified)
    }
}

fn is_edit(content: &serde_json::value::RawValue) -> bool {
    room::relation::relates_to(content).is_some_and(|relation| relation.replaces().is_some())
}
