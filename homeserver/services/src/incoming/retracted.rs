//! Events of rooms none of our users is in: nothing but the end of an invitation or a knock concerns us.

use room::{
    Pdu,
    auth::facts,
    event::{RoomIdShown, Unsigned, kind},
    versions::{self, Rules},
};
use ruma::{RoomId, RoomVersionId, events::room::member::MembershipState};
use serde::Deserialize;
use serde_json::value::RawValue;
use storage::{
    incoming::Waiting,
    invitations::{self, Invitation},
};

use super::{Incoming, Room};
use crate::{Result, notify::Change};

impl Incoming {
    /// The invitation or knock of a user of ours that an event may end, with the rules of its room.
    pub(super) async fn ended_by(&self, room_id: &RoomId, json: &str) -> Result<Option<(Invitation, &'static Rules)>> {
        #[derive(Deserialize)]
        struct Member {
            r#type: String,
            state_key: ruma::OwnedUserId,
        }
        let Ok(member) = serde_json::from_str::<Member>(json) else { return Ok(None) };
        if member.r#type != kind::MEMBER || !self.0.cx.is_local(&member.state_key) {
            return Ok(None);
        }
        let user_nid = self.0.cx.numbers.user(&member.state_key).await?;
        let mut tx = self.0.cx.store.read().await?;
        let invitation = invitations::one(&mut tx, user_nid, room_id.as_str()).await?;
        let open = invitation.filter(|invitation| invitation.membership != "leave");
        Ok(open.and_then(|invitation| {
            let rules = versions::rules(&version_of(&invitation.state)?).ok()?;
            Some((invitation, rules))
        }))
    }

    /// End the invitations that events say have ended.
    pub(super) async fn retract(&self, room_id: &RoomId, waiting: &[Waiting]) -> Result<()> {
        for event in waiting {
            let Some((invitation, rules)) = self.ended_by(room_id, &event.body).await? else { continue };
            let room = Room { nid: invitation.room_nid, id: room_id.to_owned(), rules };
            let Ok(json) = RawValue::from_string(event.body.clone()) else { continue };
            let Some(event) = self.verified(&room, &[json]).await?.pop() else { continue };
            if may_end(&invitation, &event) {
                self.end_invitation(invitation, &event).await?;
            }
        }
        Ok(())
    }

    /// An invitation or knock of a user of ours is over.
    pub(crate) async fn end_invitation(&self, invitation: Invitation, event: &Pdu) -> Result<()> {
        let user_nid = invitation.user_nid;
        let ended = Invitation {
            membership: "leave".to_owned(),
            sender: event.sender.to_string(),
            event: event.json.to_string(),
            state: as_clients_see(event)?,
            ..invitation
        };
        let mut tx = self.0.cx.store.begin().await?;
        invitations::put(&mut tx, &ended).await?;
        let span = tx.commit().await?;
        self.0.cx.notify.publish(Change { members: vec![user_nid], ..Change::at(span) });
        Ok(())
    }
}

/// What sync tells of an ended invitation: the event that ended it.
fn as_clients_see(event: &Pdu) -> Result<String> {
    let mut json = b"[".to_vec();
    event.write_client(&Unsigned::default(), RoomIdShown::No, &mut json);
    json.push(b']');
    String::from_utf8(json).map_err(crate::Error::internal)
}

/// Whether an event ends an invitation: a leave or ban by the user or by who invited. Whether somebody else had the power cannot be
/// told from here.
fn may_end(invitation: &Invitation, event: &Pdu) -> bool {
    let ends = matches!(facts::membership(event), MembershipState::Leave | MembershipState::Ban);
    ends && (invitation.membership == "knock"
        || invitation.sender == event.sender.as_str()
        || event.state_key.as_deref() == Some(event.sender.as_str()))
}

/// The room version the create event among stripped state names.
pub(crate) fn version_of(state: &str) -> Option<RoomVersionId> {
    #[derive(Deserialize)]
    struct Content {
        room_version: Option<RoomVersionId>,
    }
    #[derive(Deserialize)]
    struct Stripped<'a> {
        r#type: String,
        #[serde(borrow)]
        content: &'a RawValue,
    }
    let state: Vec<Stripped<'_>> = serde_json::from_str(state).ok()?;
    let create = state.iter().find(|event| event.r#type == kind::CREATE)?;
    let content: Content = serde_json::from_str(create.content.get()).ok()?;
    Some(content.room_version.unwrap_or(RoomVersionId::V1))
}
