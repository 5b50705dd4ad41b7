//! Invitations and knocks of our users in rooms this server is not in.

use ruma::{OwnedServerName, RoomId, UserId};
use serde_json::value::RawValue;
use storage::invitations::{self, Invitation as Row};

use super::{Elsewhere, Rooms};
use crate::{Result, notify::Change};

/// An invitation or a knock, as it was kept.
pub(super) struct Invitation(Row);

impl Invitation {
    /// Whether it was neither taken nor refused.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.0.membership.as_str(), "invite" | "knock")
    }

    /// Servers that are in the room: the inviter's.
    pub(super) fn servers(&self) -> Option<OwnedServerName> {
        let sender = <&UserId>::try_from(self.0.sender.as_str()).ok()?;
        Some(sender.server_name().to_owned())
    }
}

impl Rooms {
    /// A user's invitation or knock in a room.
    pub(super) async fn invitation(&self, user_nid: i64, room_id: &RoomId) -> Result<Option<Invitation>> {
        let row = invitations::one(&mut self.cx.store.read().await?, user_nid, room_id.as_str()).await?;
        Ok(row.map(Invitation))
    }

    /// Refuse an invitation or take back a knock. Here it is over even when the other server cannot be told.
    pub(super) async fn refuse(
        &self,
        user: &UserId,
        room_id: &RoomId,
        invitation: Invitation,
        content: &RawValue,
    ) -> Result<()> {
        let via = self.others(invitation.servers().into_iter().collect(), room_id);
        if let Some(remote) = self.remote.get() {
            let wish = Elsewhere { user, room_id, via: &via, content };
            if let Err(error) = remote.leave(wish).await {
                tracing::info!(%error, "an invitation was refused without telling its server");
            }
        }
        self.end_invitation(invitation).await
    }

    /// The invitation or knock is over: the user's clients are told.
    pub(super) async fn end_invitation(&self, invitation: Invitation) -> Result<()> {
        let row = Row { membership: "leave".to_owned(), ..invitation.0 };
        let mut tx = self.cx.store.begin().await?;
        invitations::put(&mut tx, &row).await?;
        let span = tx.commit().await?;
        self.cx.notify.publish(Change { users: vec![row.user_nid], ..Change::at(span) });
        Ok(())
    }
}
