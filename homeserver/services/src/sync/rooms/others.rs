//! The rooms of an answer that the user is not in: invited, knocking, left.

use std::sync::Arc;

use room::{
    auth::facts,
    event::{kind, stripped},
};
use ruma::events::room::member::MembershipState;
use serde_json::value::RawValue;
use storage::{invitations, timeline as stream};

use super::{Answer, Draft, Events, Gathered, Invited, Knocked, Left, Memberships, Rooms};
use crate::{Error, Result, timeline::cell::Recent};

impl Answer<'_> {
    /// Rooms the user is not in: invited, knocking, left.
    pub(super) async fn others(&self, memberships: &Memberships, is_first: bool, rooms: &mut Rooms) -> Result<()> {
        let wants = |room_id: &str| self.request.filter.room.wants_room(room_id);
        for (nid, event_nid) in &memberships.invited {
            let (room_id, state) = self.stripped(*nid, *event_nid).await?;
            if wants(&room_id) {
                rooms.invite.insert(room_id, Invited { invite_state: state });
            }
        }
        for (nid, event_nid) in &memberships.knocked {
            let (room_id, state) = self.stripped(*nid, *event_nid).await?;
            if wants(&room_id) {
                rooms.knock.insert(room_id, Knocked { knock_state: state });
            }
        }
        for (nid, pos) in &memberships.left {
            let (room_id, left) = self.left(*nid, *pos).await?;
            if wants(&room_id) {
                rooms.leave.insert(room_id, left);
            }
        }
        if !is_first && !self.entry.membership_changed_since(self.since) {
            return Ok(());
        }
        let mut tx = self.sync.cx.store.read().await?;
        let outside = invitations::changed(&mut tx, self.request.user.nid, self.since, self.until).await?;
        drop(tx);
        for invitation in outside {
            let room_id = invitation.room_id.clone();
            if !wants(&room_id) || rooms.join.contains_key(&room_id) {
                continue;
            }
            let events: Vec<Box<RawValue>> = serde_json::from_str(&invitation.state).map_err(Error::internal)?;
            match invitation.membership.as_str() {
                "invite" => drop(rooms.invite.insert(room_id, Invited { invite_state: Events { events } })),
                "knock" => drop(rooms.knock.insert(room_id, Knocked { knock_state: Events { events } })),
                _ if is_first => {}
                _ => drop(rooms.leave.entry(room_id).or_default()),
            }
        }
        Ok(())
    }

    /// What somebody outside may know of a room, and their own member event.
    async fn stripped(&self, nid: i64, member_nid: i64) -> Result<(String, Events)> {
        let timeline = &self.sync.from.timeline;
        let now = timeline.now(nid).await?;
        let mut events = Vec::new();
        for wanted in room::event::STRIPPED_TYPES {
            // Has a number from now on, so that a type no room has yet is not looked for each time.
            self.sync.cx.numbers.state_key(wanted, "").await?;
            events.extend(timeline.state_event(&now, wanted, "").await?);
        }
        events.push(timeline.events.by_nid(member_nid).await?);
        let events = events.iter().map(|event| stripped::<serde_json::Value>(&event.pdu).into_json()).collect();
        Ok((now.room_id.to_string(), Events { events }))
    }

    /// What the user may still see of a room they left at `pos`.
    async fn left(&self, nid: i64, pos: i64) -> Result<(String, Left)> {
        let now = self.sync.from.timeline.now(nid).await?;
        let mut left = Left::default();
        if pos == 0 {
            return Ok((now.room_id.to_string(), left));
        }
        let len = self.request.filter.room.timeline.timeline_len();
        let limit = i64::try_from(len + 1).unwrap_or(i64::MAX);
        let mut tx = self.sync.cx.store.read().await?;
        let rows = stream::windows(&mut tx, &[(nid, self.since)], pos.min(self.until), limit).await?;
        drop(tx);
        let mut recent = Vec::with_capacity(rows.len());
        for row in rows {
            let (pos, flags, thread_nid, seq, txn) = (row.pos, row.timeline_flags, row.thread_nid, row.seq, row.txn);
            for event in self.sync.from.timeline.events.read(vec![row.event]).await? {
                let txn = txn.clone().map(Arc::from);
                recent.push(Arc::new(Recent { pos, flags, thread_nid, seq, txn, event }));
            }
        }
        // Somebody who was never in the room sees their own member event alone.
        let own = self.request.user.user_id.as_str();
        let was_in = self.was_joined(&recent, own).await?;
        if !was_in {
            recent.retain(|e| e.event.pdu.is_state(kind::MEMBER, own));
        }
        let mut draft = Draft {
            now: Arc::clone(&now),
            since: self.since.max(1),
            events: recent,
            limited: false,
            is_spoken_about: true,
            changes: Vec::new(),
        };
        if draft.events.len() > len {
            draft.limited = true;
            draft.events.remove(0);
        }
        let drafts = [draft];
        let reader = self.reader();
        let Gathered { around, of_rooms } = self.gather(&reader, &drafts).await?;
        if let [parts] = &of_rooms[..] {
            left.timeline = self.timeline(&drafts[0], &reader, parts, &around)?;
        }
        Ok((now.room_id.to_string(), left))
    }

    async fn was_joined(&self, events: &[Arc<Recent>], user_id: &str) -> Result<bool> {
        let Some(last) = events.iter().rev().find(|e| e.event.pdu.is_state(kind::MEMBER, user_id)) else {
            return Ok(true);
        };
        let Some(state) = last.event.state_nid else { return Ok(false) };
        let snapshot = self.sync.from.timeline.snapshots.by_nid(state).await?;
        let before = self.sync.from.timeline.state_event_in(&snapshot, kind::MEMBER, user_id).await?;
        Ok(facts::membership_of(before.as_ref().map(|e| &*e.pdu)) == MembershipState::Join)
    }
}
