//! The rooms of an answer that the user is not in: invited, knocking, left.

use std::sync::Arc;

use room::event::stripped;
use serde_json::value::RawValue;
use storage::{invitations, timeline as stream};

use super::{Answer, Draft, Events, Gone, Invited, Knocked, Left, Memberships, Rooms};
use crate::{
    Error, Result,
    reading::Right,
    timeline::{cell::Recent, now::RoomNow},
};

impl Answer<'_> {
    /// Rooms the user is not in: invited, knocking, left.
    pub(super) async fn others(&self, memberships: &Memberships, is_first: bool, rooms: &mut Rooms) -> Result<()> {
        let wants = |room_id: &str| self.request.filter.room.wants_room(room_id);
        let ignored = self.sync.from.ignored.of(self.request.user.nid).await?;
        for (nid, event_nid) in &memberships.invited {
            let invitation = self.sync.from.timeline.events.by_nid(*event_nid).await?;
            if ignored.contains(&invitation.pdu.sender) {
                continue;
            }
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
        for gone in &memberships.left {
            let now = self.sync.from.timeline.now(gone.room_nid).await?;
            if wants(now.room_id.as_str()) {
                rooms.leave.insert(now.room_id.to_string(), self.left(&now, gone).await?);
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
            let is_ignored = ignored.iter().any(|user| user.as_str() == invitation.sender);
            match invitation.membership.as_str() {
                "invite" if is_ignored => {}
                "invite" => drop(rooms.invite.insert(room_id, Invited { invite_state: Events { events } })),
                "knock" => drop(rooms.knock.insert(room_id, Knocked { knock_state: Events { events } })),
                _ if is_first && !self.request.filter.room.include_leave => {}
                _ => rooms.leave.entry(room_id).or_default().timeline.events = events,
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

    /// What the user may still see of a room they left.
    async fn left(&self, now: &RoomNow, gone: &Gone) -> Result<Left> {
        let timeline = &self.sync.from.timeline;
        let member = timeline.events.by_nid(gone.member_nid).await?;
        let pos = match gone.pos {
            Some(pos) => pos,
            None => {
                let place = stream::place_of(&mut self.sync.cx.store.read().await?, gone.member_nid).await?;
                place.map_or(0, |(pos, _, _)| pos)
            }
        };
        let since = if gone.was_known && !self.request.full_state { self.since } else { 0 };
        let right = self.sync.from.reading.right(&self.request.user, now).await?;
        let mut now = now.clone();
        if let Some(state) = member.state_after() {
            now.snapshot = timeline.snapshots.by_nid(state).await?;
        }
        let mut draft = Draft::new(Arc::new(now), since);
        draft.events = self.until(gone.room_nid, since, pos).await?;
        // Somebody who was never in the room, or has forgotten it, sees their own member event alone.
        let Some(right @ Right::Left(_)) = right else {
            draft.events.retain(|e| e.event.nid == gone.member_nid);
            draft.since = draft.since.max(1);
            let (timeline, _) = self.written(draft).await?;
            return Ok(Left { timeline, ..Left::default() });
        };
        draft.limited = self.may_have_more(&draft.events);
        self.cut(&mut draft, &right).await?;
        if !draft.is_whole() && super::needs_changes(&draft, self.request.use_state_after) {
            let mut tx = self.sync.cx.store.read().await?;
            draft.changes = stream::state_changes(&mut tx, &[(gone.room_nid, since)], pos).await?;
        }
        let (timeline, state) = self.written(draft).await?;
        let mut left = Left { timeline, ..Left::default() };
        *self.state_place([&mut left.state, &mut left.state_after, &mut left.unstable_state_after]) = Some(state);
        Ok(left)
    }

    /// The newest events of a room up to a position.
    async fn until(&self, room_nid: i64, since: i64, pos: i64) -> Result<Vec<Arc<Recent>>> {
        let limit = i64::try_from(self.looked_at()).unwrap_or(i64::MAX);
        let mut tx = self.sync.cx.store.read().await?;
        let rows = stream::windows(&mut tx, &[(room_nid, since)], pos.min(self.until), limit).await?;
        drop(tx);
        let mut found = self.recent(rows).await?;
        Ok(found.remove(&room_nid).unwrap_or_default())
    }
}
