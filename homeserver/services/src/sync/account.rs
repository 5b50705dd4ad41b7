//! The parts of an answer that are the user's own: account data, to-device messages, keys, presence of others.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use ruma::UserId;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use storage::{
    account_data::{self, AccountData},
    members,
};

use super::{Answer, DeviceLists, Response, Token, rooms::Moves};
use crate::{
    Error, Result,
    push_rules::{self, RULES},
    timeline::now::RoomNow,
};

/// A piece of account data as clients see it.
#[derive(Serialize)]
struct Piece<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    content: &'a RawValue,
}

/// Somebody's presence as clients see it.
#[derive(Serialize)]
struct PresenceEvent<'a, C> {
    #[serde(rename = "type")]
    kind: &'static str,
    sender: &'a str,
    content: C,
}

/// A piece of account data as an event.
pub(crate) fn piece(kind: &str, body: &str) -> Result<Box<RawValue>> {
    let content: &RawValue = serde_json::from_str(body).map_err(Error::internal)?;
    to_raw_value(&Piece { kind, content }).map_err(Error::internal)
}

impl Answer<'_> {
    /// Account data that is new, globally and of rooms; what the filter does not want is left out.
    pub(super) async fn account_data(&self, since: Option<Token>) -> Result<Vec<AccountData>> {
        if since.is_some() && !self.entry.account_changed_since(self.since) {
            return Ok(Vec::new());
        }
        let user_nid = self.request.user.nid;
        let mut tx = self.sync.cx.store.read().await?;
        let mut rows = match since {
            None => account_data::all(&mut tx, user_nid, self.until).await?,
            Some(_) => account_data::changed(&mut tx, user_nid, self.since, self.until).await?,
        };
        drop(tx);
        let filter = &self.request.filter;
        rows.retain(|row| match row.room_nid {
            0 => filter.account_data.wants_type(&row.kind),
            _ => filter.room.account_data.wants_type(&row.kind),
        });
        // Who has changed none of them has the default push rules.
        if since.is_none() && filter.account_data.wants_type(RULES) && !rows.iter().any(|row| row.kind == RULES) {
            let body = push_rules::content(&push_rules::defaults(&self.request.user.user_id));
            rows.push(AccountData { room_nid: 0, kind: RULES.to_owned(), body });
        }
        Ok(rows)
    }

    /// Put account data where it belongs. Rooms the user is not in, or that the filter does not want, are passed over.
    pub(super) fn put_account_data(
        rows: &[AccountData],
        nows: &BTreeMap<i64, Arc<RoomNow>>,
        response: &mut Response,
    ) -> Result<()> {
        for row in rows {
            if row.room_nid == 0 {
                response.account_data.events.push(piece(&row.kind, &row.body)?);
            } else if let Some(now) = nows.get(&row.room_nid)
                && let Some(joined) = response.rooms.join.get_mut(now.room_id.as_str())
            {
                joined.account_data.events.push(piece(&row.kind, &row.body)?);
            }
        }
        Ok(())
    }

    /// Messages to this device, changes of others' devices, and what is left of its own one-time keys.
    pub(super) async fn devices(
        &self,
        since: Option<Token>,
        moves: &Moves,
        response: &mut Response,
        token: &mut Token,
    ) -> Result<()> {
        if self.device.is_empty() {
            return Ok(());
        }
        let user_nid = self.request.user.nid;
        let from = &self.sync.from;
        if since.is_none() || self.entry.inbox_changed_since(self.since) {
            let inbox = from.to_device.deliver(user_nid, self.device, self.since, self.until, |_| false).await?;
            response.to_device.events = inbox.events;
            // More may wait behind a full delivery: the rest of this answer is told again then, which clients bear.
            token.pos = token.pos.min(inbox.read_to.max(self.since));
        }
        let has_changed = moves.happened
            || self.sync.watch.devices_changed(self.entry, self.since)
            || self.entry.membership_changed_since(self.since);
        if since.is_some() && has_changed {
            let lists = from.keys.device_lists(user_nid, self.since, self.until).await?;
            let names = |users: Vec<ruma::OwnedUserId>| users.into_iter().map(|user| user.to_string()).collect();
            response.device_lists = DeviceLists { changed: names(lists.changed), left: names(lists.left) };
        }
        let supply = from.keys.supply(user_nid, self.device).await?;
        response.device_one_time_keys_count = supply.one_time;
        response.device_unused_fallback_key_types = supply.unused_fallback;
        Ok(())
    }

    /// Presence of those the user shares a room with: what changed, and all of those they share a room with since.
    pub(super) async fn presence(
        &self,
        since: Option<Token>,
        moves: &Moves,
        response: &mut Response,
        token: &mut Token,
    ) -> Result<()> {
        let presence = &self.sync.from.presence;
        let filter = &self.request.filter.presence;
        let seen = since.map_or(0, |s| s.presence);
        token.presence = presence.serial();
        let is_news = seen != token.presence || !moves.newcomers.is_empty() || !moves.new_rooms.is_empty();
        if !presence.is_on() || !is_news || !filter.wants_type("m.presence") {
            return Ok(());
        }
        let newcomers = self.newcomers(moves).await?;
        let (mut changed, serial) = presence.changed(seen, |nid| !newcomers.contains(&nid));
        changed.extend(newcomers.into_iter().map(|nid| (nid, presence.of(nid))).filter(|(_, seen)| seen.is_known()));
        token.presence = serial;
        if changed.is_empty() {
            return Ok(());
        }
        let mut visible: HashSet<i64> = HashSet::from([self.request.user.nid]);
        if changed.iter().any(|(nid, _)| *nid != self.request.user.nid) {
            let mut tx = self.sync.cx.store.read().await?;
            visible.extend(members::sharing_with(&mut tx, self.request.user.nid).await?);
        }
        let nids: Vec<i64> = changed.iter().map(|(nid, _)| *nid).filter(|nid| visible.contains(nid)).collect();
        let names = self.sync.cx.numbers.user_names(&nids).await?;
        for (nid, seen) in changed {
            let Some(name) = names.get(&nid).filter(|_| visible.contains(&nid)) else { continue };
            if <&UserId>::try_from(&**name).is_err() || !filter.wants("m.presence", name, "") {
                continue;
            }
            let event = PresenceEvent { kind: "m.presence", sender: name, content: presence.show(seen) };
            response.presence.events.push(to_raw_value(&event).map_err(Error::internal)?);
        }
        Ok(())
    }

    /// Users whom the user shares a room with since, and may share others with.
    async fn newcomers(&self, moves: &Moves) -> Result<HashSet<i64>> {
        let mut newcomers = moves.newcomers.clone();
        if !moves.new_rooms.is_empty() {
            let rows = members::inhabitants(&mut self.sync.cx.store.read().await?, &moves.new_rooms).await?;
            newcomers.extend(rows.into_iter().filter(|row| row.membership == "join").map(|row| row.user_nid));
        }
        newcomers.remove(&self.request.user.nid);
        Ok(newcomers)
    }
}
