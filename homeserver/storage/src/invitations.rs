//! Table `invitations`: invitations and knocks of local users in rooms this server is not in, with the stripped state they came
//! with. For rooms we are in, `members` and the room's own state say it all.

use crate::{Result, Tx};

/// An invitation or a knock.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Invitation {
    /// Who is invited, or knocks.
    pub user_nid: i64,
    /// The room.
    pub room_nid: i64,
    /// The room's id: we may know nothing else of it.
    pub room_id: String,
    /// `invite`, `knock`, or `leave` once it is over.
    pub membership: String,
    /// Who invited.
    pub sender: String,
    /// The member event, signed, JSON.
    pub event: String,
    /// The stripped state, JSON list.
    pub state: String,
}

sql!(
    PUT,
    "
    INSERT INTO invitations (user_nid, room_nid, room_id, membership, sender, event, state, pos)
    VALUES ($1, $2, $3, $4, $5, $6, $7, (SELECT next FROM next_position))
    ON CONFLICT (user_nid, room_nid) DO UPDATE SET membership = excluded.membership, sender = excluded.sender,
        event = excluded.event, state = excluded.state, pos = excluded.pos"
);
sql!(FORGET_OTHERS, "DELETE FROM invitations WHERE user_nid = $1 AND room_id = $2 AND room_nid <> $3");
sql!(
    ONE,
    "
    SELECT user_nid, room_nid, room_id, membership, sender, event, state FROM invitations
    WHERE user_nid = $1 AND room_id = $2"
);
sql!(REMOVE, "DELETE FROM invitations WHERE user_nid = $1 AND room_id = $2");
sql!(
    CHANGED,
    "
    SELECT user_nid, room_nid, room_id, membership, sender, event, state FROM invitations
    WHERE user_nid = $1 AND pos > $2 AND pos <= $3 ORDER BY pos"
);

/// Store an invitation, a knock, or the end of one, in place of what the user had of the room before, whatever its number was then.
///
/// # Errors
/// The driver's.
pub async fn put(tx: &mut Tx, i: &Invitation) -> Result<()> {
    execute!(tx, FORGET_OTHERS, i.user_nid, i.room_id.as_str(), i.room_nid)?;
    execute!(
        tx,
        PUT,
        i.user_nid,
        i.room_nid,
        i.room_id.as_str(),
        i.membership.as_str(),
        i.sender.as_str(),
        i.event.as_str(),
        i.state.as_str()
    )?;
    tx.streamed(1);
    Ok(())
}

/// The invitation or knock of a user in a room.
///
/// # Errors
/// The driver's.
pub async fn one(tx: &mut Tx, user_nid: i64, room_id: &str) -> Result<Option<Invitation>> {
    fetch_optional!(tx, ONE, user_nid, room_id)
}

/// What changed in `since < pos <= until`, in order.
///
/// # Errors
/// The driver's.
pub async fn changed(tx: &mut Tx, user_nid: i64, since: i64, until: i64) -> Result<Vec<Invitation>> {
    fetch_all!(tx, CHANGED, user_nid, since, until)
}

/// Forget an invitation or knock that was answered: the room itself tells the rest.
///
/// # Errors
/// The driver's.
pub async fn remove(tx: &mut Tx, user_nid: i64, room_id: &str) -> Result<()> {
    execute!(tx, REMOVE, user_nid, room_id)?;
    Ok(())
}
