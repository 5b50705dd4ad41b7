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

/// Events of stripped state taken from an invitation.
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
    /// [`Error::Invalid`] for an event that is no invitation; [`Error::Forbidden`]; [`Error::NotFound`] for a user we do not have;
    /// [`Code::IncompatibleRoomVersion`].
    pub async fn invite(&self, origin: &ServerName, invite: Invite) -> Result<Box<RawValue>> {
        let rules = versions::rules(&invite.version)
            .map_err(|_| Error::Specific(Code::IncompatibleRoomVersion, invite.version.to_string()))?;
        let nid = self.timeline.reserve_room(&invite.room_id, rules).await?;
        let room = Room { nid, id: invite.room_id.clone(), rules };
        let event = self.incoming.verified(&room, std::slice::from_ref(&invite.event)).await?.pop();
        let event = event.ok_or_else(|| Error::forbidden("the invitation is not signed as it must be"))?;
        if event.event_id != invite.event_id {
            return Err(Error::invalid("the event is not the one its path names"));
        }
        if event.kind != kind::MEMBER || facts::membership(&event) != MembershipState::Invite {
            return Err(Error::invalid("the event is no invitation"));
        }
        if event.sender.server_name() != origin {
            return Err(Error::forbidden("a server speaks for its own users alone"));
        }
        let user = event.state_key.as_deref().and_then(|key| UserId::parse(key).ok());
        let user = user.filter(|user| self.cx.is_local(user)).ok_or_else(|| Error::invalid("the user is not ours"))?;
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
            self.keep_invitation(nid, &user, &signed, &invite).await?;
        }
        Ok(signed.to_federation())
    }

    async fn keep_invitation(&self, room_nid: i64, user: &UserId, event: &Pdu, invite: &Invite) -> Result<()> {
        let mut state: Vec<Box<RawValue>> =
            invite.state.iter().take(STATE_LEN_MAX).filter_map(|event| shown_outside(event)).collect();
        state.push(stripped::<ruma::events::AnyStrippedStateEvent>(event).into_json());
        let user_nid = self.cx.numbers.user(user).await?;
        let invitation = Invitation {
            user_nid,
            room_nid,
            room_id: invite.room_id.to_string(),
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

/// One event of another server as the invited user sees it: type, state key, sender, content. Only what describes the room.
pub(crate) fn shown_outside(event: &RawValue) -> Option<Box<RawValue>> {
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
