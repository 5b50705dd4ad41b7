//! What of rooms is not kept: who has read what, and who types.

use std::{collections::BTreeMap, sync::Arc};

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::{Answer, Token};
use crate::{Error, Result, timeline::now::RoomNow};

type ReceiptContent = BTreeMap<String, BTreeMap<String, BTreeMap<String, ReceiptInfo>>>;

#[derive(Serialize)]
struct ReceiptInfo {
    ts: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    thread_id: Option<String>,
}

#[derive(Serialize)]
struct Ephemeral<C> {
    #[serde(rename = "type")]
    kind: &'static str,
    content: C,
}

#[derive(Serialize)]
struct TypingContent {
    user_ids: Vec<String>,
}

impl Answer<'_> {
    /// Receipts and typing of all rooms.
    pub(in crate::sync) async fn ephemeral(
        &self,
        nows: &BTreeMap<i64, Arc<RoomNow>>,
        since: Option<Token>,
    ) -> Result<BTreeMap<i64, Vec<Box<RawValue>>>> {
        let filter = &self.request.filter.room.ephemeral;
        let mut found: BTreeMap<i64, Vec<Box<RawValue>>> = BTreeMap::new();
        let rooms: Vec<(i64, i64)> = nows
            .values()
            .filter(|now| filter.wants_room(now.room_id.as_str()))
            .map(|now| (now.nid, self.since))
            .collect();
        if rooms.is_empty() {
            return Ok(found);
        }
        let nids: Vec<i64> = rooms.iter().map(|room| room.0).collect();
        if filter.wants_type("m.typing") {
            let changed = self.sync.from.typing.changed(&nids, since.map_or(0, |s| s.typing), self.typing);
            for nid in changed {
                let (users, _) = self.sync.from.typing.room(nid);
                if since.is_none() && users.is_empty() {
                    continue;
                }
                found.entry(nid).or_default().push(self.typing_event(&users).await?);
            }
        }
        if filter.wants_type("m.receipt") && (since.is_none() || self.sync.watch.receipts_changed(&nids, self.since)) {
            let receipts = self.sync.from.receipts.since(&rooms, self.until, self.request.user.nid).await?;
            let users: Vec<i64> = receipts.iter().map(|receipt| receipt.user_nid).collect();
            let names = self.sync.cx.numbers.user_names(&users).await?;
            // An event for each room and thread: somebody may have read one event both with its thread and with the room.
            let mut by_lane: BTreeMap<(i64, String), ReceiptContent> = BTreeMap::new();
            for receipt in receipts {
                let Some(name) = names.get(&receipt.user_nid) else { continue };
                let thread = Some(receipt.thread.clone()).filter(|thread| !thread.is_empty());
                by_lane
                    .entry((receipt.room_nid, receipt.thread))
                    .or_default()
                    .entry(receipt.event_id)
                    .or_default()
                    .entry(receipt.kind)
                    .or_default()
                    .insert(name.to_string(), ReceiptInfo { ts: receipt.ts, thread_id: thread });
            }
            for ((nid, _), content) in by_lane {
                let event = Ephemeral { kind: "m.receipt", content };
                found.entry(nid).or_default().push(to_raw_value(&event).map_err(Error::internal)?);
            }
        }
        Ok(found)
    }

    async fn typing_event(&self, users: &[i64]) -> Result<Box<RawValue>> {
        let names = self.sync.cx.numbers.user_names(users).await?;
        let mut user_ids: Vec<String> = names.values().map(ToString::to_string).collect();
        user_ids.sort_unstable();
        to_raw_value(&Ephemeral { kind: "m.typing", content: TypingContent { user_ids } }).map_err(Error::internal)
    }
}
