//! Invitations of our users to rooms of other servers: signed by us, kept until answered or taken back.
//!
//! Source: Server-Server API, "Inviting to a room".

use room::{
    Pdu,
    auth::facts,
    event::{STRIPPED_TYPES, kind, stripped},
    versions,
};
use ruma::{OwnedEventId, OwnedRoomId, RoomVersionId, ServerName, UserId, events::room::member::MembershipState};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use storage::invitations::{self, Invitation};

use super::Resident;
use crate::{Error, Result, error::Code, incoming::Room, notify::Change};

/// Events of stripped state taken from an invitation or the answer to a knock.
const STATE_LEN_MAX: usize = 30;

/// An invitation as another server sends it.
#[derive(Debug, Clone)]
pub struct Invite {
    /// The room.
    pub room_id: OwnedRoomId,
    /// The event's id.
    pub event_id: OwnedEventId,
    /// The room's version.
    pub version: RoomVersionId,
    /// The event, signed by the inviting server.
    pub event: Box<RawValue>,
    /// What the invited user is shown of the room: whole events, or stripped ones from older servers.
    pub state: Vec<Box<RawValue>>,
}

impl Resident {
    /// A server invites a user of ours. Returns the event with our signature.
    ///
    /// # Errors
    /// [`Error::InvalidParam`] for what is no invitation of `origin`, or comes without what shows the room; [`Error::Forbidden`];
    /// [`Error::NotFound`] for a user we do not have; [`Code::IncompatibleRoomVersion`].
    pub async fn invite(&self, origin: &ServerName, invite: Invite) -> Result<Box<RawValue>> {
        let rules = versions::rules(&invite.version)
            .map_err(|_| Error::Specific(Code::IncompatibleRoomVersion, invite.version.to_string()))?;
        // A number is given to the room once the invitation is known to be one.
        let mut room = Room { nid: 0, id: invite.room_id.clone(), rules };
        let event = self.incoming.verified(&room, std::slice::from_ref(&invite.event)).await?.pop();
        let event = event.ok_or_else(|| wrong("the invitation is not signed as it must be"))?;
        if event.event_id != invite.event_id {
            return Err(wrong("the event is not the one its path names"));
        }
        if event.kind != kind::MEMBER || facts::membership(&event) != MembershipState::Invite {
            return Err(wrong("the event is no invitation"));
        }
        if event.sender.server_name() != origin {
            return Err(wrong("a server speaks for its own users alone"));
        }
        let user = event.state_key.as_deref().and_then(|key| UserId::parse(key).ok());
        let user = user.filter(|user| self.cx.is_local(user)).ok_or_else(|| wrong("the user is not ours"))?;
        let seen = self.seen_from_outside(&room, &invite.state).await?;
        // Older versions' servers may show what they like.
        if versions::room_id_is_create_hash(rules) && !seen.is_whole {
            return Err(wrong("what is shown of the room is not its events, or lacks the create event"));
        }
        let account = storage::accounts::by_name(&mut self.cx.store.read().await?, user.as_str()).await?;
        if account.is_none() {
            return Err(Error::NotFound("user"));
        }
        let signed = room::build::countersign(&event, self.cx.signer(), rules)?;
        let is_inhabited = match self.timeline.room(&invite.room_id).await {
            Ok(now) if !self.incoming.is_admitted(&now, origin).await? => {
                return Err(Error::forbidden("the room's access list does not let this server in"));
            }
            Ok(now) => !now.inhabitants.local.is_empty(),
            Err(Error::NotFound(_)) => false,
            Err(error) => return Err(error),
        };
        if !is_inhabited {
            room.nid = self.number_outside(&user, &room).await?;
            self.keep_invitation(&room, &user, &signed, seen.shown).await?;
        }
        Ok(signed.to_federation())
    }

    /// What another server shows of a room that we are not in, as our users see it: of version 12 on nothing that is not an event of
    /// the room, signed by whom it says; of older ones also what servers have stripped already.
    ///
    /// # Errors
    /// The database's.
    pub(crate) async fn seen_from_outside(&self, room: &Room, told: &[Box<RawValue>]) -> Result<Seen> {
        let told = &told[..told.len().min(STATE_LEN_MAX)];
        if !versions::room_id_is_create_hash(room.rules) {
            return Ok(Seen { shown: told.iter().filter_map(|event| shown_outside(event)).collect(), is_whole: true });
        }
        let events = self.incoming.verified(room, told).await?;
        let is_whole = events.len() == told.len() && events.iter().any(|event| event.is_create());
        Ok(Seen { shown: events.iter().filter_map(|event| shown_outside(&event.to_federation())).collect(), is_whole })
    }

    /// The number of a room we are not in, for an invitation or knock of a user: that of the one before, if there was one.
    ///
    /// # Errors
    /// The database's.
    pub(crate) async fn number_outside(&self, user: &UserId, room: &Room) -> Result<i64> {
        let user_nid = self.cx.numbers.user(user).await?;
        let before = invitations::one(&mut self.cx.store.read().await?, user_nid, room.id.as_str()).await?;
        match before {
            Some(before) if matches!(self.timeline.room_nid(&room.id).await, Err(Error::NotFound(_))) => {
                Ok(before.room_nid)
            }
            _ => self.timeline.reserve_room(&room.id, room.rules).await,
        }
    }

    async fn keep_invitation(
        &self,
        room: &Room,
        user: &UserId,
        event: &Pdu,
        mut state: Vec<Box<RawValue>>,
    ) -> Result<()> {
        state.push(stripped::<ruma::events::AnyStrippedStateEvent>(event).into_json());
        let user_nid = self.cx.numbers.user(user).await?;
        let invitation = Invitation {
            user_nid,
            room_nid: room.nid,
            room_id: room.id.to_string(),
            membership: "invite".to_owned(),
            sender: event.sender.to_string(),
            event: event.json.to_string(),
            state: serde_json::to_string(&state).map_err(Error::internal)?,
        };
        let mut tx = self.cx.store.begin().await?;
        invitations::put(&mut tx, &invitation).await?;
        let span = tx.commit().await?;
        self.cx.notify.publish(Change { members: vec![user_nid], ..Change::at(span) });
        Ok(())
    }
}

/// What a server shows of a room from outside.
pub(crate) struct Seen {
    /// The events, stripped.
    pub(crate) shown: Vec<Box<RawValue>>,
    /// Whether all of it was as it must be, the create event among it.
    is_whole: bool,
}

fn wrong(words: &str) -> Error {
    Error::InvalidParam(words.to_owned())
}

/// One event of another server as the invited user sees it: type, state key, sender, content. Only what describes the room.
fn shown_outside(event: &RawValue) -> Option<Box<RawValue>> {
    #[derive(Deserialize, Serialize)]
    struct Stripped<'a> {
        #[serde(borrow)]
        content: &'a RawValue,
        sender: ruma::OwnedUserId,
        state_key: String,
        r#type: String,
    }
    let event: Stripped<'_> = serde_json::from_str(event.get()).ok()?;
    let describes = STRIPPED_TYPES.contains(&event.r#type.as_str()) && event.state_key.is_empty();
    let is_member = event.r#type == kind::MEMBER;
    (describes || is_member).then(|| serde_json::value::to_raw_value(&event).ok()).flatten()
}
