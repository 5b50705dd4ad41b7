//! Who may read a room, and which of its events.
//!
//! Members read; who left reads what was there until then; everybody reads what the room shows the world; application services read
//! the rooms in their namespaces. Of single events the room's history visibility at the event decides, and the reader's membership
//! there (see [`room::visibility`]). Events of ignored users are left out, their state is not.
//!
//! A batch of events costs at most two statements: the states at them, and the events in those.

use std::{collections::HashSet, sync::Arc};

use room::{
    auth::facts,
    event::kind,
    state::StateKeyNumber,
    visibility::{self, At},
};
use ruma::{
    RoomId,
    events::room::{history_visibility::HistoryVisibility, member::MembershipState},
};
use storage::{events::Place, members};

use super::{Rooms, not_in_room};
use crate::{
    Result,
    accounts::User,
    timeline::{events::Stored, now::RoomNow, snapshots::Snapshot},
};

/// How far back memberships are followed to find out when somebody was in the room last.
const MEMBERSHIPS_FOLLOWED_MAX: usize = 50;

/// How a reader stands to a room.
#[derive(Debug)]
pub(super) struct Standing {
    /// The room.
    pub now: Arc<RoomNow>,
    /// Until when they read.
    pub until: Until,
    /// Events before this place were followed by a time in which they were in the room.
    joined_until: Option<Place>,
}

/// Until when somebody reads.
#[derive(Debug)]
pub(super) enum Until {
    /// They are in the room, or everybody reads it.
    Now,
    /// They left with this event.
    Left(Arc<Stored>),
}

impl Standing {
    /// The first gap in the room's history behind which they read nothing.
    pub(super) fn last_gap(&self) -> Option<Place> {
        match &self.until {
            Until::Now => None,
            Until::Left(event) => Some(gap_after(event)),
        }
    }
}

/// The gap behind an event.
pub(super) fn gap_after(event: &Stored) -> Place {
    let (depth, nid) = event.place();
    (depth, nid.saturating_add(1))
}

impl Rooms {
    /// How a user stands to a room they want to read.
    ///
    /// # Errors
    /// [`crate::Error::Forbidden`] for whoever may not, whether the room exists or not.
    pub(super) async fn standing(&self, user: &User, room_id: &RoomId) -> Result<Standing> {
        let now = self.room(room_id).await?;
        let always = Some((i64::MAX, i64::MAX));
        let is_covered = || {
            let id = user.appservice.as_deref()?;
            self.namespaces.get().filter(|all| all.covers_room(id, room_id))
        };
        if now.has_local(user.nid) || is_covered().is_some() {
            return Ok(Standing { now, until: Until::Now, joined_until: always });
        }
        let member = members::membership(&mut self.cx.store.read().await?, now.nid, user.nid).await?;
        if member.as_ref().is_some_and(|member| member.forgotten) {
            return Err(not_in_room());
        }
        if let Some(member) = member.filter(|m| matches!(m.membership.as_str(), "leave" | "ban")) {
            let left = self.timeline.events.by_nid(member.event_nid).await?;
            if let Some(end) = self.end_of_last_join(&left).await? {
                return Ok(Standing { now, until: Until::Left(left), joined_until: Some(end) });
            }
        }
        if now.facts.history_visibility.as_deref() == Some("world_readable") {
            return Ok(Standing { now, until: Until::Now, joined_until: None });
        }
        Err(not_in_room())
    }

    /// The place at which the user whose membership this event ends was in the room last; `None` when they never were.
    async fn end_of_last_join(&self, event: &Arc<Stored>) -> Result<Option<Place>> {
        let mut event = Arc::clone(event);
        for _ in 0..MEMBERSHIPS_FOLLOWED_MAX {
            let (Some(state_nid), Some(user)) = (event.state_nid, &event.pdu.state_key) else { return Ok(None) };
            let before = self.timeline.snapshots.by_nid(state_nid).await?;
            let Some(prev) = self.timeline.state_event_in(&before, kind::MEMBER, user).await? else { return Ok(None) };
            if facts::membership(&prev.pdu) == MembershipState::Join {
                return Ok(Some(event.place()));
            }
            event = prev;
        }
        Ok(None)
    }

    /// The state a reader sees as the room's.
    pub(super) async fn snapshot_for(&self, standing: &Standing) -> Result<Arc<Snapshot>> {
        match &standing.until {
            Until::Now => Ok(Arc::clone(&standing.now.snapshot)),
            Until::Left(event) => self.timeline.snapshots.by_nid(event.state_after().unwrap_or_default()).await,
        }
    }

    /// Which of these events (all of the room) a user may read, in their order: true or false for each.
    pub(super) async fn may_read(&self, user: &User, standing: &Standing, events: &[Arc<Stored>]) -> Result<Vec<bool>> {
        let visibility = self.cx.numbers.state_key_if_known(kind::HISTORY_VISIBILITY, "").await?;
        let membership = self.cx.numbers.state_key_if_known(kind::MEMBER, user.user_id.as_str()).await?;
        let ignored = self.ignored.of(user.nid).await?;
        let mut states = HashSet::new();
        for event in events {
            states.extend(event.state_nid);
            if visibility::changes_what_is_seen(&event.pdu, user.user_id.as_str()) {
                states.extend(event.state_after_nid);
            }
        }
        let states: Vec<i64> = states.into_iter().collect();
        let states = self.timeline.snapshots.by_nids(&states).await?;
        let mut wanted: HashSet<i64> = HashSet::new();
        for snapshot in states.values() {
            wanted.extend(entry(snapshot, visibility));
            wanted.extend(entry(snapshot, membership));
        }
        // What state events replaced is shown beside them: fetched here, it costs nothing more.
        for event in events {
            if let (Some(key), Some(nid)) = (&event.pdu.state_key, event.state_nid)
                && let Some(snapshot) = states.get(&nid)
            {
                let key = self.cx.numbers.state_key_if_known(&event.pdu.kind, key).await?;
                wanted.extend(entry(snapshot, key));
            }
        }
        let wanted: Vec<i64> = wanted.into_iter().collect();
        let found = self.timeline.events.by_nids(&wanted).await?;
        let at = |nid: Option<i64>, key: Option<i64>| {
            let event = entry(states.get(&nid?)?, key)?;
            found.get(&event).map(|event| &*event.pdu)
        };
        let mut may = Vec::with_capacity(events.len());
        for event in events {
            let Some(before) = event.state_nid.filter(|_| event.is_visible()) else {
                may.push(false);
                continue;
            };
            let after = event.state_after().filter(|nid| states.contains_key(nid)).unwrap_or(before);
            let visible: At<HistoryVisibility> = At {
                before: facts::history_visibility(at(Some(before), visibility)),
                after: facts::history_visibility(at(Some(after), visibility)),
            };
            let member: At<MembershipState> = At {
                before: facts::membership_of(at(Some(before), membership)),
                after: facts::membership_of(at(Some(after), membership)),
            };
            let joined_later = standing.joined_until.is_some_and(|end| event.place() <= end);
            let is_ignored = event.pdu.state_key.is_none() && ignored.contains(&event.pdu.sender);
            may.push(!is_ignored && visibility::user_may_see(&visible, &member, joined_later));
        }
        Ok(may)
    }

    /// The event with this id, if a user may read it in this room.
    ///
    /// # Errors
    /// [`crate::Error::NotFound`] for an event that does not exist, and for one that is not theirs to see.
    pub(super) async fn seen(
        &self,
        user: &User,
        room_id: &RoomId,
        event_id: &ruma::EventId,
    ) -> Result<(Standing, Arc<Stored>)> {
        const UNSEEN: crate::Error = crate::Error::NotFound("event");
        let standing = self.standing(user, room_id).await.map_err(|error| match error {
            crate::Error::Forbidden(_) => UNSEEN,
            error => error,
        })?;
        let event = self.timeline.events.by_id(event_id).await?;
        let event = event.filter(|event| event.room_nid == standing.now.nid).ok_or(UNSEEN)?;
        let may = self.may_read(user, &standing, std::slice::from_ref(&event)).await?;
        if may.first() == Some(&true) { Ok((standing, event)) } else { Err(UNSEEN) }
    }
}

/// The event at a state key, by numbers.
fn entry(snapshot: &Snapshot, key: Option<i64>) -> Option<i64> {
    let key = StateKeyNumber(u64::try_from(key?).ok()?);
    snapshot.state.get(key).and_then(|event| i64::try_from(event.0).ok())
}
