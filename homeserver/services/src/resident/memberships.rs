//! The way in and out of a room for other servers' users: `make_*` gives a template, `send_*` takes it back signed.
//!
//! Source: Server-Server API, "Joining Rooms", "Leaving Rooms (Rejecting Invites)", "Knocking upon a room".

use std::sync::Arc;

use room::{
    Pdu,
    auth::{self, facts},
    build::{self, Draft, Place},
    event::{STRIPPED_TYPES, kind},
};
use ruma::{
    EventId, OwnedUserId, RoomId, RoomVersionId, ServerName, UserId, events::room::member::MembershipState,
    room::JoinRuleKind,
};
use serde_json::{
    json,
    value::{RawValue, to_raw_value},
};
use storage::members;

use super::{Resident, StateWithChain};
use crate::{
    Error, Result,
    error::Code,
    incoming::{How, Room, Taken},
    timeline::{events::Stored, now::RoomNow},
};

/// Names, in the content of a join of a room with restricted access, who vouches for it.
pub const AUTHORISED_VIA: &str = "join_authorised_via_users_server";

/// An event for another server to complete.
#[derive(Debug, Clone)]
pub struct Template {
    /// The room's version.
    pub version: RoomVersionId,
    /// The event, unsigned.
    pub event: Box<RawValue>,
}

/// A user entered through us.
#[derive(Debug, Clone)]
pub struct Entered {
    /// The member event, with our signature where the room asks for it.
    pub event: Arc<Pdu>,
    /// The room before it.
    pub before: StateWithChain,
    /// Servers in the room.
    pub servers: Vec<ruma::OwnedServerName>,
}

impl Resident {
    /// `make_join`, `make_leave`, `make_knock`: what `user` must sign. `versions` are those the asking server takes part in; `None`
    /// when it was not asked.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Forbidden`], [`Error::Refused`]; [`Error::Specific`] when the version is not among those given
    /// or the join cannot be authorised here.
    pub async fn template(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        user: &UserId,
        membership: MembershipState,
        versions: Option<&[RoomVersionId]>,
    ) -> Result<Template> {
        if user.server_name() != origin {
            return Err(Error::forbidden("a server speaks for its own users alone"));
        }
        let now = self.open_room(origin, room_id).await?;
        if versions.is_some_and(|versions| !versions.contains(&now.version)) {
            return Err(Self::incompatible(&now));
        }
        let mut content = json!({ "membership": membership });
        if membership == MembershipState::Join
            && let Some(authoriser) = self.authoriser(&now, user).await?
        {
            content[AUTHORISED_VIA] = authoriser.as_str().into();
        }
        let content = to_raw_value(&content).map_err(Error::internal)?;
        let draft = Draft::state(kind::MEMBER, user.as_str(), user.to_owned(), content);
        let place = self.place(&now, &draft).await?;
        // Signed with our key only to be able to ask the rules about it.
        let event = build::build(&draft, &place, self.cx.signer(), now.rules)?;
        self.check(&now, &event).await?;
        let event = build::template(&draft, &place, now.rules)?;
        Ok(Template { version: now.version.clone(), event })
    }

    /// Where a draft stands in the room now.
    pub(crate) async fn place(&self, now: &RoomNow, draft: &Draft) -> Result<Place> {
        let types =
            build::auth_types(&draft.kind, &draft.sender, draft.state_key.as_deref(), &draft.content, now.rules)
                .map_err(Error::Invalid)?;
        let mut auth_events = Vec::with_capacity(types.len());
        for (event_kind, key) in &types {
            let event = self.timeline.state_event(now, event_kind, key).await?;
            auth_events.extend(event.map(|event| event.pdu.event_id.clone()));
        }
        let (prev_events, depth) = now.next_place();
        let room_id = Some(now.room_id.clone());
        Ok(Place { room_id, prev_events, auth_events, depth, origin_server_ts: self.cx.clock.now() })
    }

    /// Whether the room's rules allow an event now.
    pub(crate) async fn check(&self, now: &RoomNow, event: &Pdu) -> Result<()> {
        let types =
            build::auth_types(&event.kind, &event.sender, event.state_key.as_deref(), &event.content, now.rules)
                .map_err(Error::Invalid)?;
        let mut witnesses: Vec<Arc<Stored>> = Vec::with_capacity(types.len() + 1);
        for (event_kind, key) in &types {
            witnesses.extend(self.timeline.state_event(now, event_kind, key).await?);
        }
        if !witnesses.iter().any(|event| event.pdu.is_create()) {
            witnesses.extend(self.timeline.state_event(now, kind::CREATE, "").await?);
        }
        auth::check(event, now.rules, |event_kind, key| {
            witnesses.iter().find(|event| event.pdu.is_state(event_kind, key)).map(|event| Arc::clone(&event.pdu))
        })?;
        Ok(())
    }

    /// Whoever of our users lets `user` into a restricted room; `None` when nobody needs to.
    ///
    /// # Errors
    /// [`Error::Forbidden`] when the room's conditions do not hold; [`Code::UnableToAuthoriseJoin`] when we cannot tell, and
    /// [`Code::UnableToGrantJoin`] when none of our users may invite.
    pub async fn authoriser(&self, now: &RoomNow, user: &UserId) -> Result<Option<OwnedUserId>> {
        let rules = self.timeline.state_event(now, kind::JOIN_RULES, "").await?;
        let rule = facts::join_rule(rules.as_ref().map(|event| &*event.pdu));
        if !matches!(rule, JoinRuleKind::Restricted | JoinRuleKind::KnockRestricted)
            || !now.rules.authorization.restricted_join_rule
        {
            return Ok(None);
        }
        let member = self.timeline.state_event(now, kind::MEMBER, user.as_str()).await?;
        let membership = facts::membership_of(member.as_ref().map(|event| &*event.pdu));
        if matches!(membership, MembershipState::Join | MembershipState::Invite) {
            return Ok(None);
        }
        let user_nid = self.cx.numbers.user(user).await?;
        let (mut can_tell, mut fulfils) = (true, false);
        for allowed in rules.as_ref().map(|event| facts::allowed_rooms(&event.pdu)).unwrap_or_default() {
            let other = self.timeline.room(&allowed).await.ok().filter(|other| !other.inhabitants.local.is_empty());
            let Some(other) = other else {
                can_tell = false;
                continue;
            };
            fulfils |= members::is_joined(&mut self.cx.store.read().await?, other.nid, user_nid).await?;
        }
        if !fulfils && can_tell {
            return Err(Error::forbidden("you are in none of the rooms whose members may join this one"));
        }
        if !fulfils {
            let words = "this server is in none of the rooms whose members may join this one".to_owned();
            return Err(Error::Specific(Code::UnableToAuthoriseJoin, words));
        }
        let powers = self.timeline.powers(now).await?;
        let names = self.cx.numbers.user_names(&now.inhabitants.local).await?;
        let mut able: Vec<OwnedUserId> = names.values().filter_map(|name| UserId::parse(&**name).ok()).collect();
        able.sort_unstable();
        let found = able.into_iter().find(|user| powers.can_invite(user));
        let words = "no user of this server may invite to the room".to_owned();
        found.map(Some).ok_or(Error::Specific(Code::UnableToGrantJoin, words))
    }

    /// `send_join`, `send_leave`, `send_knock`: take the completed event and tell the other servers of it.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an event that is not what its path says; [`Error::Forbidden`], [`Error::Refused`].
    pub async fn enter(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        event_id: &EventId,
        json: &RawValue,
        membership: MembershipState,
    ) -> Result<Entered> {
        let now = self.open_room(origin, room_id).await?;
        let room = Room::from(&*now);
        let event = Pdu::from_remote(json.get().as_bytes(), now.rules).map_err(|e| Error::Invalid(e.to_string()))?;
        if event.event_id() != event_id || event.room_id() != room_id {
            return Err(Error::invalid("the event is not the one its path names"));
        }
        if event.sender().server_name() != origin {
            return Err(Error::forbidden("a server speaks for its own users alone"));
        }
        let json = self.countersigned(&now, json)?;
        let checked = self.incoming.verified(&room, &[json]).await?.pop();
        let event = checked.ok_or_else(|| Error::forbidden("the event is not signed as it must be"))?;
        if !event.is_state(kind::MEMBER, event.sender.as_str()) || facts::membership(&event) != membership {
            return Err(Error::invalid(format!("the event is not a {membership} of its sender")));
        }
        match self.incoming.take(&room, origin, Arc::clone(&event), How::RELAYED).await? {
            Taken::Accepted(_) | Taken::Known => {}
            Taken::Rejected(refusal) | Taken::SoftFailed(refusal) => return Err(refusal.into()),
            Taken::Undecided(_) => return Err(Error::forbidden("nobody vouches for the event")),
        }
        let stored = self.timeline.events.by_id(event_id).await?.ok_or(Error::NotFound("event"))?;
        let state_nid = stored.state_nid.ok_or_else(|| Error::internal("an accepted event has no state"))?;
        let snapshot = self.timeline.snapshots.by_nid(state_nid).await?;
        let before = self.with_chain(&now, &snapshot).await?;
        let mut servers = self.incoming.servers_of(&now).await?;
        servers.push(self.cx.server_name.clone());
        Ok(Entered { event, before, servers })
    }

    /// A join that one of our users lets in needs our signature before it is complete.
    fn countersigned(&self, now: &RoomNow, json: &RawValue) -> Result<Box<RawValue>> {
        let mut object =
            room::canonical::parse(json.get().as_bytes()).map_err(|error| Error::Invalid(error.to_string()))?;
        let authoriser = object
            .get("content")
            .and_then(|content| content.as_object())
            .and_then(|content| content.get(AUTHORISED_VIA))
            .and_then(|user| user.as_str())
            .and_then(|user| UserId::parse(user).ok());
        if !now.rules.signatures.check_join_authorised_via_users_server
            || !authoriser.is_some_and(|user| self.cx.is_local(&user))
        {
            return Ok(json.to_owned());
        }
        object.remove("unsigned");
        let key = self.cx.signing_key.pair();
        ruma::signatures::hash_and_sign_event(self.cx.server_name.as_str(), key, &mut object, &now.rules.redaction)
            .map_err(|error| Error::Invalid(error.to_string()))?;
        RawValue::from_string(room::canonical::write(&object)).map_err(Error::internal)
    }

    /// What somebody outside is shown of a room: its create event, name and so on, whole.
    ///
    /// # Errors
    /// The database's.
    pub async fn outside_state(&self, now: &RoomNow) -> Result<Vec<Arc<Pdu>>> {
        let mut events = Vec::with_capacity(STRIPPED_TYPES.len());
        for event_kind in STRIPPED_TYPES {
            let event = self.timeline.state_event(now, event_kind, "").await?;
            events.extend(event.map(|event| Arc::clone(&event.pdu)));
        }
        Ok(events)
    }

    /// The same by room id, for the answer to a knock.
    ///
    /// # Errors
    /// [`Error::NotFound`]; the database's.
    pub async fn outside_state_of(&self, room_id: &RoomId) -> Result<Vec<Arc<Pdu>>> {
        let now = self.timeline.room(room_id).await?;
        self.outside_state(&now).await
    }
}
