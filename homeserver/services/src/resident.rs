//! What other servers ask of us as residents of a room: events, states, history, and the way in and out for their users.
//!
//! Who asks must take part in the room itself and be let in by its access list; events its users may not see are given redacted.
//!
//! Not here: what they send unasked ([`crate::incoming`]), asking others ourselves ([`crate::joining`]).

mod history;
mod invited;
mod memberships;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use room::{
    Pdu,
    auth::facts,
    event::{create_event_id, kind},
    redact, versions,
    visibility::{At, server_may_see},
};
use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, RoomId, ServerName, events::room::member::MembershipState,
};
use storage::events::flags;

pub use self::{
    history::Nearest,
    invited::Invite,
    memberships::{AUTHORISED_VIA, Entered, Template},
};
use crate::{
    Context, Error, Result,
    error::Code,
    incoming::Incoming,
    timeline::{Timeline, events::Stored, now::RoomNow, snapshots::Snapshot},
};

/// Answers other servers about rooms. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Resident {
    cx: Context,
    timeline: Timeline,
    incoming: Incoming,
}

/// A room's state before an event, with everything that vouches for it.
#[derive(Debug, Clone)]
pub struct StateWithChain {
    /// The state's events.
    pub state: Vec<Arc<Stored>>,
    /// The auth chain of all of them.
    pub auth_chain: Vec<Arc<Stored>>,
}

impl Resident {
    /// On these.
    #[must_use]
    pub fn new(cx: Context, timeline: Timeline, incoming: Incoming) -> Self {
        Self { cx, timeline, incoming }
    }

    /// Our name, which answers carry.
    #[must_use]
    pub fn server_name(&self) -> &ServerName {
        &self.cx.server_name
    }

    /// Now, which answers carry.
    #[must_use]
    pub fn now(&self) -> MilliSecondsSinceUnixEpoch {
        self.cx.clock.now()
    }

    /// The room, if we take part and its access list lets `origin` in.
    pub(crate) async fn open_room(&self, origin: &ServerName, room_id: &RoomId) -> Result<Arc<RoomNow>> {
        let now = self.timeline.room(room_id).await?;
        if now.inhabitants.local.is_empty() {
            return Err(Error::NotFound("room"));
        }
        if !self.incoming.is_admitted(&now, origin).await? {
            return Err(Error::forbidden("the room's access list does not let this server in"));
        }
        Ok(now)
    }

    /// The room, if `origin` takes part in it as we do.
    async fn shared_room(&self, origin: &ServerName, room_id: &RoomId) -> Result<Arc<RoomNow>> {
        let now = self.open_room(origin, room_id).await?;
        let server_nid = self.cx.numbers.server(origin).await?;
        if !now.inhabitants.servers.contains_key(&server_nid) {
            return Err(Error::forbidden("the server is not in the room"));
        }
        Ok(now)
    }

    /// One event, for a server that takes part in its room.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Forbidden`].
    pub async fn event(&self, origin: &ServerName, event_id: &EventId) -> Result<Arc<Pdu>> {
        let event = self.timeline.events.by_id(event_id).await?.ok_or(Error::NotFound("event"))?;
        let now = self.shared_room(origin, &event.pdu.room_id).await?;
        let mut shown = self.shown_to(origin, &now, vec![event]).await?;
        shown.pop().ok_or(Error::NotFound("event"))
    }

    /// The state before an event, and what vouches for it.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Forbidden`].
    pub async fn state(&self, origin: &ServerName, room_id: &RoomId, event_id: &EventId) -> Result<StateWithChain> {
        let now = self.shared_room(origin, room_id).await?;
        let event = self.timeline.events.by_id(event_id).await?.filter(|event| event.room_nid == now.nid);
        let event = event.ok_or(Error::NotFound("event"))?;
        let state_nid = event.state_nid.ok_or(Error::NotFound("state of the event"))?;
        let snapshot = self.timeline.snapshots.by_nid(state_nid).await?;
        self.with_chain(&now, &snapshot).await
    }

    async fn with_chain(&self, now: &RoomNow, snapshot: &Snapshot) -> Result<StateWithChain> {
        let state = self.timeline.state_events(snapshot).await?;
        let auth_chain = self.auth_chain(now, state.iter().map(|event| &*event.pdu)).await?;
        Ok(StateWithChain { state, auth_chain })
    }

    /// The auth chain of an event of the room.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Forbidden`].
    pub async fn event_auth(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        event_id: &EventId,
    ) -> Result<Vec<Arc<Stored>>> {
        let now = self.shared_room(origin, room_id).await?;
        let event = self.timeline.events.by_id(event_id).await?.filter(|event| event.room_nid == now.nid);
        let event = event.ok_or(Error::NotFound("event"))?;
        self.auth_chain(&now, [&*event.pdu]).await
    }

    /// Everything that vouches for these events, directly or not.
    async fn auth_chain<'a>(
        &self,
        now: &RoomNow,
        events: impl IntoIterator<Item = &'a Pdu>,
    ) -> Result<Vec<Arc<Stored>>> {
        let mut wanted: HashSet<OwnedEventId> =
            events.into_iter().flat_map(|event| event.auth_events.iter().cloned()).collect();
        if versions::room_id_is_create_hash(now.rules) {
            wanted.extend(create_event_id(&now.room_id));
        }
        let mut seen = wanted.clone();
        let mut chain = Vec::new();
        while !wanted.is_empty() {
            let ids: Vec<OwnedEventId> = wanted.drain().collect();
            for event in self.timeline.events.by_ids(&ids).await?.into_values() {
                let fresh = event.pdu.auth_events.iter().filter(|id| seen.insert((*id).clone()));
                wanted.extend(fresh.cloned());
                chain.push(event);
            }
        }
        Ok(chain)
    }

    /// Events as `origin` may have them: whole, or redacted when its users could not see them. Refused ones are left out.
    async fn shown_to(&self, origin: &ServerName, now: &RoomNow, events: Vec<Arc<Stored>>) -> Result<Vec<Arc<Pdu>>> {
        let mut known: HashMap<i64, bool> = HashMap::new();
        let mut shown = Vec::with_capacity(events.len());
        for event in events {
            if event.has(flags::REJECTED) {
                continue;
            }
            // State is what the server needs to take part at all, and outliers are state.
            let Some(state_nid) = event.state_nid.filter(|_| event.pdu.state_key.is_none()) else {
                shown.push(Arc::clone(&event.pdu));
                continue;
            };
            let may_see = match known.get(&state_nid) {
                Some(may_see) => *may_see,
                None => {
                    let may_see = self.may_see(origin, state_nid).await?;
                    known.insert(state_nid, may_see);
                    may_see
                }
            };
            shown.push(if may_see {
                Arc::clone(&event.pdu)
            } else {
                Arc::new(redact::redacted(&event.pdu, now.rules)?)
            });
        }
        Ok(shown)
    }

    /// Whether users of `origin` could see what was said on this state.
    async fn may_see(&self, origin: &ServerName, state_nid: i64) -> Result<bool> {
        let snapshot = self.timeline.snapshots.by_nid(state_nid).await?;
        let visibility = self.timeline.state_event_in(&snapshot, kind::HISTORY_VISIBILITY, "").await?;
        let visibility = At::unchanged(facts::history_visibility(visibility.as_ref().map(|event| &*event.pdu)));
        if server_may_see(&visibility, std::iter::empty::<&MembershipState>()) {
            return Ok(true);
        }
        let memberships: Vec<MembershipState> = self
            .timeline
            .state_events(&snapshot)
            .await?
            .iter()
            .filter(|event| event.pdu.kind == kind::MEMBER)
            .filter(|event| {
                let server = event.pdu.state_key.as_deref().and_then(|user| user.split_once(':'));
                server.is_some_and(|(_, server)| server == origin.as_str())
            })
            .map(|event| facts::membership(&event.pdu))
            .collect();
        Ok(server_may_see(&visibility, &memberships))
    }

    /// A room version the other side cannot take part in.
    fn incompatible(now: &RoomNow) -> Error {
        Error::Specific(Code::IncompatibleRoomVersion, now.version.to_string())
    }
}
