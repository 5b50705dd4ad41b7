//! Invitations of people by an address that became a user's later: the identity server tells the user's server, which asks that of
//! whoever invited to make the invitation.
//!
//! Neither believes the other: the room itself holds the keys with which the identity server signed (`m.room.third_party_invite`),
//! and the rules for member events ask for that signature.
//!
//! Source: Server-Server API, "Third-party invites".

use room::{auth::facts, build::Draft, event::kind};
use ruma::{
    OwnedRoomId, OwnedUserId, RoomId, ServerName, UserId,
    api::federation::thirdparty::exchange_invite::v1 as exchange,
    events::room::member::{RoomMemberEventContent, SignedContent},
    serde::{JsonObject, Raw},
};
use serde::Deserialize;
use serde_json::{Value, json, value::to_raw_value};

use super::Joining;
use crate::{Error, Result, federation::client::Terms};

/// Invitations looked at when an address is bound; nobody waits for more.
pub const INVITES_PER_BINDING_MAX: usize = 50;

/// An invitation that waited for an address to be bound to a user.
#[derive(Debug, Clone)]
pub struct BoundInvite {
    /// The room.
    pub room_id: OwnedRoomId,
    /// Who invited.
    pub sender: OwnedUserId,
    /// Who it turned out to be, with the token of the room's event, signed by the identity server.
    pub signed: Raw<SignedContent>,
}

impl Joining {
    /// An address was bound to `user`, one of ours: see that they are invited where it waited for that. What cannot be done is logged:
    /// who tells us this proves nothing, and is told nothing.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a user we do not have; the database's.
    pub async fn bound(&self, user: &UserId, invites: &[BoundInvite]) -> Result<()> {
        let account = storage::accounts::by_name(&mut self.cx.store.read().await?, user.as_str()).await?;
        if account.is_none() {
            return Err(Error::NotFound("user"));
        }
        for invite in invites.iter().take(INVITES_PER_BINDING_MAX) {
            let done = if self.cx.is_local(&invite.sender) {
                self.admit_third_party(&invite.room_id, &invite.sender, user, &invite.signed).await
            } else {
                self.ask_to_invite(user, invite).await
            };
            match done {
                Ok(()) => {}
                Err(error @ (Error::Storage(_) | Error::Stopping)) => return Err(error),
                Err(error) => {
                    tracing::info!(room = %invite.room_id, %error, "an invitation by address came to nothing")
                }
            }
        }
        Ok(())
    }

    /// `exchange_third_party_invite`: a server whose user an address belongs to asks for the invitation one of our users meant.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Forbidden`]; [`Error::InvalidParam`] for what is no such invitation; [`Error::Refused`] when the
    /// room does not hold the keys it was signed with; [`Error::Remote`] when the asking server does not take the invitation.
    pub async fn exchange(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        sender: &UserId,
        invited: &UserId,
        content: &Raw<RoomMemberEventContent>,
    ) -> Result<()> {
        #[derive(Deserialize)]
        struct Content {
            membership: String,
            third_party_invite: ThirdParty,
        }
        #[derive(Deserialize)]
        struct ThirdParty {
            signed: Raw<SignedContent>,
        }
        let wrong = |words: &str| Error::InvalidParam(words.to_owned());
        let content: Content =
            serde_json::from_str(content.json().get()).map_err(|_| wrong("the content is no invitation by address"))?;
        if content.membership != "invite" {
            return Err(wrong("the content is no invitation"));
        }
        if invited.server_name() != origin {
            return Err(Error::forbidden("a server speaks for its own users alone"));
        }
        if !self.cx.is_local(sender) {
            return Err(Error::forbidden("whoever invited is not a user of this server"));
        }
        self.resident.open_room(origin, room_id).await?;
        self.admit_third_party(room_id, sender, invited, &content.third_party_invite.signed).await
    }

    /// Invite, in the name of `sender`, one of ours, whom they invited by address before.
    async fn admit_third_party(
        &self,
        room_id: &RoomId,
        sender: &UserId,
        invited: &UserId,
        signed: &Raw<SignedContent>,
    ) -> Result<()> {
        let token = signed.get_field::<String>("token").ok().flatten().unwrap_or_default();
        let now = self.timeline.room(room_id).await?;
        let meant = self.timeline.state_event(&now, kind::THIRD_PARTY_INVITE, &token).await?;
        let meant = meant.ok_or_else(|| Error::forbidden("the room has no invitation with this token"))?;
        // What the room calls them, not what somebody else says.
        let name: String = facts::field(&meant.pdu.content, "display_name").unwrap_or_default();
        let mut content = JsonObject::new();
        content.insert("third_party_invite".to_owned(), json!({ "display_name": name, "signed": signed }));
        if !self.cx.is_local(invited) {
            return self.invite(&now, sender, invited, &content).await;
        }
        content.insert("membership".to_owned(), Value::from("invite"));
        let content = to_raw_value(&content).map_err(Error::internal)?;
        let draft = Draft::state(kind::MEMBER, invited.as_str(), sender.to_owned(), content);
        self.timeline.append(now.nid, draft).await?;
        Ok(())
    }

    /// Ask the server of whoever invited one of ours by address to make the invitation.
    async fn ask_to_invite(&self, user: &UserId, invite: &BoundInvite) -> Result<()> {
        // Their server puts in what the room calls the user.
        let third_party = json!({ "display_name": user.localpart(), "signed": invite.signed });
        let content = json!({ "membership": "invite", "third_party_invite": third_party });
        let content = Raw::from_json(to_raw_value(&content).map_err(Error::internal)?);
        let room_id = invite.room_id.clone();
        let request = exchange::Request::new(room_id, invite.sender.clone(), user.to_owned(), content);
        self.federation.client().send(invite.sender.server_name(), request, Terms::BRIEF).await?;
        Ok(())
    }
}
