//! Is a user in a room? For services that only need to know that before they serve somebody.

use ruma::RoomId;
use storage::{members, rooms};

use crate::{Context, Error, Result};

/// The number of `room_id`, when `user_nid` is joined to it.
///
/// # Errors
/// [`Error::Forbidden`] when the user is not joined or the room is not known here, without saying which.
pub async fn room(cx: &Context, room_id: &RoomId, user_nid: i64) -> Result<i64> {
    let mut tx = cx.store.read().await?;
    if let Some(head) = rooms::by_id(&mut tx, room_id.as_str()).await?
        && members::is_joined(&mut tx, head.nid, user_nid).await?
    {
        return Ok(head.nid);
    }
    Err(Error::forbidden("you are not in this room"))
}
