//! May this user read this room, and which of its events?
//!
//! The one place that answers it for everything clients read of a room: state, history, relations, threads, search. Two steps:
//! [`Reading::access`] says with what right somebody reads (and refuses), [`Reading::visible`] then drops the events of the past
//! they may not see, a batch at a time. For members access costs no statement while the room is in memory; a batch costs a few,
//! whatever its size: the states at the events, and what stands in those about the reader.
//!
//! Not here: the rule itself (`room::visibility`), how events are shown ([`crate::view`]).

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use room::{
    auth::facts,
    event::{Pdu, kind},
    state::StateKeyNumber,
    visibility::{self, At},
};
use ruma::{
    EventId, RoomId,
    events::room::{history_visibility::HistoryVisibility, member::MembershipState},
};
use storage::members;

use crate::{
    Context, Error, Result,
    accounts::User,
    appservices::registry::Registry,
    ignored::Ignored,
    timeline::{Timeline, events::Stored, now::RoomNow, snapshots::Snapshot},
    view::{Reader, txn_prefix},
};

/// Memberships of one user looked back through to find whether they ever joined.
const MEMBERSHIPS_BACK_MAX: usize = 20;

/// With what right somebody reads a room.
#[derive(Debug, Clone)]
pub enum Right {
    /// They are in it.
    Joined,
    /// They were in it until this member event; they read its state as of then, and its history up to then.
    Left(Arc<Stored>),
    /// Its history is open to the world.
    World,
    /// They speak for an application service that the room belongs to.
    Appservice,
}

/// Somebody who may read a room.
#[derive(Debug, Clone)]
pub struct Access {
    /// The room now.
    pub now: Arc<RoomNow>,
    /// Who reads.
    pub reader: Reader,
    /// With what right.
    pub right: Right,
}

impl Access {
    /// True when they are in the room.
    #[must_use]
    pub fn is_joined(&self) -> bool {
        matches!(self.right, Right::Joined)
    }
}

/// A user as one who reads.
#[must_use]
pub fn reader(user: &User) -> Reader {
    let txn_prefix = user.device_id.as_ref().map(|device| txn_prefix(user.nid, device.as_str()));
    Reader { user_id: user.user_id.clone(), nid: user.nid, txn_prefix }
}

/// Says who may read what. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reading {
    cx: Context,
    timeline: Timeline,
    ignored: Ignored,
    registry: Registry,
}

/// What decides about one event: the state entries at it, and after it where it changes them.
#[derive(Default)]
struct Facts {
    visibility: [Option<i64>; 2],
    membership: [Option<i64>; 2],
}

impl Reading {
    /// On `timeline`.
    #[must_use]
    pub fn new(cx: Context, timeline: Timeline, ignored: Ignored, registry: Registry) -> Self {
        Self { cx, timeline, ignored, registry }
    }

    /// With what right `user` reads `room_id`.
    ///
    /// # Errors
    /// [`Error::Forbidden`] when they may not, also when there is no such room: nobody learns which.
    pub async fn access(&self, user: &User, room_id: &RoomId) -> Result<Access> {
        let refused = || Error::forbidden("you are not in this room");
        let now = match self.timeline.room(room_id).await {
            Err(Error::NotFound(_)) => return Err(refused()),
            other => other?,
        };
        let right = self.right(user, &now).await?.ok_or_else(refused)?;
        Ok(Access { now, reader: reader(user), right })
    }

    /// With what right `user` reads a room; `None` when they may not.
    ///
    /// # Errors
    /// The database's.
    pub async fn right(&self, user: &User, now: &RoomNow) -> Result<Option<Right>> {
        if now.has_local(user.nid) {
            return Ok(Some(Right::Joined));
        }
        let speaks_for_owner = user.appservice.as_ref().is_some_and(|id| self.registry.covers_room(id, &now.room_id));
        if speaks_for_owner {
            return Ok(Some(Right::Appservice));
        }
        if let Some(member) = self.timeline.state_event(now, kind::MEMBER, user.user_id.as_str()).await?
            && let Some(end) = self.end_of_stay(&member, user.user_id.as_str()).await?
            && !self.has_forgotten(now.nid, user.nid).await?
        {
            return Ok(Some(Right::Left(end)));
        }
        Ok(is_world_readable(now).then_some(Right::World))
    }

    /// The state this access opens: the current one, or the one as of leaving.
    ///
    /// # Errors
    /// The database's.
    pub async fn state(&self, access: &Access) -> Result<Arc<Snapshot>> {
        match &access.right {
            Right::Left(member) => {
                let nid =
                    member.state_after().ok_or_else(|| Error::internal("a current member event without state"))?;
                self.timeline.snapshots.by_nid(nid).await
            }
            _ => Ok(Arc::clone(&access.now.snapshot)),
        }
    }

    /// An event of the room, if the reader may see it.
    ///
    /// # Errors
    /// [`Error::NotFound`] also when they may not.
    pub async fn event(&self, access: &Access, event_id: &EventId) -> Result<Arc<Stored>> {
        let found = self.timeline.events.by_id(event_id).await?;
        let found = found.filter(|event| event.room_nid == access.now.nid && event.is_visible());
        let found = self.visible(access, found.into_iter().collect()).await?.pop();
        found.ok_or(Error::NotFound("event"))
    }

    /// The numbers of those of `events` the reader may see; as [`Reading::visible`].
    ///
    /// # Errors
    /// The database's.
    pub async fn visible_nids(&self, access: &Access, events: Vec<Arc<Stored>>) -> Result<HashSet<i64>> {
        Ok(self.visible(access, events).await?.iter().map(|event| event.nid).collect())
    }

    /// Those of `events` the reader may see, in their order. All are of the room the access is for.
    ///
    /// What ignored users said is dropped, what they changed in the room's state stays.
    ///
    /// # Errors
    /// The database's.
    pub async fn visible(&self, access: &Access, events: Vec<Arc<Stored>>) -> Result<Vec<Arc<Stored>>> {
        if events.is_empty() {
            return Ok(events);
        }
        if matches!(access.right, Right::Appservice) {
            return Ok(events);
        }
        let ignored = self.ignored.of(access.reader.nid).await?;
        let decided = self.decide(access, &events).await?;
        let kept = events.into_iter().zip(decided).filter(|(event, is_seen)| {
            *is_seen && (event.pdu.state_key.is_some() || !ignored.contains(&event.pdu.sender))
        });
        Ok(kept.map(|(event, _)| event).collect())
    }

    async fn decide(&self, access: &Access, events: &[Arc<Stored>]) -> Result<Vec<bool>> {
        let own = access.reader.user_id.as_str();
        let visibility_key = self.key(kind::HISTORY_VISIBILITY, "").await?;
        let member_key = self.key(kind::MEMBER, own).await?;
        let mut states: BTreeSet<i64> = events.iter().filter_map(|event| event.state_nid).collect();
        let turning = events.iter().filter(|event| visibility::changes_what_is_seen(&event.pdu, own));
        states.extend(turning.filter_map(|event| event.state_after()));
        let states: Vec<i64> = states.into_iter().collect();
        let snapshots = self.timeline.snapshots.by_nids(&states).await?;
        let look = |state: Option<i64>, key: Option<StateKeyNumber>| {
            let event = snapshots.get(&state?)?.state.get(key?)?;
            i64::try_from(event.0).ok()
        };
        let mut found = Vec::with_capacity(events.len());
        for event in events {
            let after = match visibility::changes_what_is_seen(&event.pdu, own) {
                true => event.state_after(),
                false => event.state_nid,
            };
            found.push(Facts {
                visibility: [look(event.state_nid, visibility_key), look(after, visibility_key)],
                membership: [look(event.state_nid, member_key), look(after, member_key)],
            });
        }
        let wanted: BTreeSet<i64> =
            found.iter().flat_map(|facts| facts.visibility.into_iter().chain(facts.membership).flatten()).collect();
        let wanted: Vec<i64> = wanted.into_iter().collect();
        let known = self.timeline.events.by_nids(&wanted).await?;
        Ok(events.iter().zip(&found).map(|(event, facts)| is_seen(access, event, facts, &known)).collect())
    }

    async fn key(&self, event_kind: &str, state_key: &str) -> Result<Option<StateKeyNumber>> {
        let nid = self.cx.numbers.state_key_if_known(event_kind, state_key).await?;
        Ok(nid.and_then(|nid| u64::try_from(nid).ok()).map(StateKeyNumber))
    }

    /// The event by which somebody left whose current member event is `member`; `None` when they are not gone or never joined.
    async fn end_of_stay(&self, member: &Arc<Stored>, user_id: &str) -> Result<Option<Arc<Stored>>> {
        if !matches!(facts::membership(&member.pdu), MembershipState::Leave | MembershipState::Ban) {
            return Ok(None);
        }
        let mut event = Arc::clone(member);
        for _ in 0..MEMBERSHIPS_BACK_MAX {
            let Some(state_nid) = event.state_nid else { return Ok(None) };
            let before = self.timeline.snapshots.by_nid(state_nid).await?;
            match self.timeline.state_event_in(&before, kind::MEMBER, user_id).await? {
                Some(earlier) if facts::membership(&earlier.pdu) == MembershipState::Join => return Ok(Some(event)),
                Some(earlier) => event = earlier,
                None => return Ok(None),
            }
        }
        Ok(None)
    }

    async fn has_forgotten(&self, room_nid: i64, user_nid: i64) -> Result<bool> {
        let member = members::membership(&mut self.cx.store.read().await?, room_nid, user_nid).await?;
        Ok(member.is_some_and(|member| member.forgotten))
    }
}

/// Whether anybody may read the room now.
#[must_use]
pub fn is_world_readable(now: &RoomNow) -> bool {
    now.facts.history_visibility.as_deref() == Some("world_readable")
}

fn is_seen(access: &Access, event: &Stored, facts: &Facts, known: &HashMap<i64, Arc<Stored>>) -> bool {
    if event.state_nid.is_none() {
        // Not part of the room's history: nobody pages to it.
        return false;
    }
    let pdu = |nid: Option<i64>| -> Option<&Pdu> { nid.and_then(|nid| known.get(&nid)).map(|event| &*event.pdu) };
    let visibility = facts.visibility.map(|nid| facts::history_visibility(pdu(nid)));
    let membership = facts.membership.map(|nid| facts::membership_of(pdu(nid)));
    let [before, after]: [HistoryVisibility; 2] = visibility;
    let visibility = At { before, after };
    let [before, after]: [MembershipState; 2] = membership;
    let membership = At { before, after };
    let joined_later = match &access.right {
        Right::Joined => true,
        // Who has left was in the room before that: after everything that happened earlier.
        Right::Left(member) => event.place() < member.place(),
        Right::World | Right::Appservice => false,
    };
    visibility::user_may_see(&visibility, &membership, joined_later)
}
