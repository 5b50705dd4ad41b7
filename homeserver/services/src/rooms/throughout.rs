//! What changes in all rooms of a user at once: their name, and their end.

use futures_util::{StreamExt as _, stream};
use ruma::UserId;
use storage::{invitations, members, rooms};

use super::{
    Rooms,
    membership::{Extra, Face, member_content},
};
use crate::Result;

/// Rooms written to at once; what is ready together is stored together.
const ROOMS_AT_ONCE: usize = 32;

impl Rooms {
    /// Carry a new name or avatar into all rooms a user of ours is in. Rooms that refuse keep the old one.
    ///
    /// # Errors
    /// The database's, before the first room; what fails in a single room goes to the log.
    pub async fn show_profile(&self, user_id: &UserId, user_nid: i64, face: &Face) -> Result<()> {
        let joined = members::rooms_of(&mut self.cx.store.read().await?, user_nid, "join").await?;
        stream::iter(joined)
            .for_each_concurrent(ROOMS_AT_ONCE, |nid| async move {
                let done = async {
                    let now = self.from.timeline.now(nid).await?;
                    if now.has_local(user_nid) {
                        self.set_member(&now, user_id, user_id, &member_content("join", face, Extra::new())).await?;
                    }
                    Ok::<_, crate::Error>(())
                };
                if let Err(error) = done.await {
                    tracing::info!(%error, room = nid, "a profile was not carried into a room");
                }
            })
            .await;
        Ok(())
    }

    /// Leave all rooms, refuse all invitations and take back all knocks of a user of ours whose account ends.
    ///
    /// # Errors
    /// The database's, before the first room; what fails in a single room goes to the log.
    pub async fn leave_all(&self, user: &UserId, user_nid: i64) -> Result<()> {
        let mut tx = self.cx.store.read().await?;
        let present = members::of_user(&mut tx, user_nid).await?;
        let nids: Vec<i64> = present
            .into_iter()
            .filter(|m| matches!(m.membership.as_str(), "join" | "invite" | "knock"))
            .map(|m| m.room_nid)
            .collect();
        let heads = rooms::by_nids(&mut tx, &nids).await?;
        let outside = invitations::changed(&mut tx, user_nid, 0, i64::MAX).await?;
        drop(tx);
        let open = outside.into_iter().filter(|i| matches!(i.membership.as_str(), "invite" | "knock"));
        let room_ids: Vec<String> = heads.into_iter().map(|head| head.room_id).chain(open.map(|i| i.room_id)).collect();
        stream::iter(room_ids)
            .for_each_concurrent(ROOMS_AT_ONCE, |room_id| async move {
                let Ok(room_id) = ruma::OwnedRoomId::try_from(room_id) else { return };
                if let Err(error) = self.leave_as(user, user_nid, &room_id, Extra::new()).await {
                    tracing::info!(%error, %room_id, "a user whose account ended stays in a room");
                }
            })
            .await;
        Ok(())
    }
}
