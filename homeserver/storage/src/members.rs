//! Table `members`: who is or was in which room, as the room's current state says.
//!
//! | column | meaning |
//! |---|---|
//! | room_nid, user_nid | key |
//! | membership | `join`, `invite`, `leave`, `ban` or `knock` |
//! | event_nid | the member event |
//! | forgotten | a local user who left does not want to see the room any more |
//!
//! Follows current state: written in the transaction that moves it. Invitations of rooms this server is not in stand in
//! `invitations` alone.

use std::collections::HashMap;

use crate::{Result, Tx, numbers::json_list};

/// A user's place in a room.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Member {
    /// The room.
    pub room_nid: i64,
    /// The user.
    pub user_nid: i64,
    /// `join`, `invite`, `leave`, `ban` or `knock`.
    pub membership: String,
    /// The member event.
    pub event_nid: i64,
    /// True when the user has left and forgotten the room.
    pub forgotten: bool,
}

/// A user's place in a room, with one change of it.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct MemberChange {
    /// As it is now.
    #[sqlx(flatten)]
    pub member: Member,
    /// Position of the change; `None` when nothing changed.
    pub pos: Option<i64>,
    /// The member event before the change.
    pub prev_event_nid: Option<i64>,
}

/// A membership to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMember<'a> {
    /// The room.
    pub room_nid: i64,
    /// The user.
    pub user_nid: i64,
    /// `join`, `invite`, `leave`, `ban` or `knock`.
    pub membership: &'a str,
    /// The member event.
    pub event_nid: i64,
}

// A new membership ends a forgetting only when the user is to see the room again.
sql!(PUT,
    sqlite: "
        INSERT INTO members (room_nid, user_nid, membership, event_nid, forgotten)
        SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
            json_extract(value, '$[3]'), FALSE FROM json_each($1) WHERE TRUE
        ON CONFLICT (room_nid, user_nid) DO UPDATE SET membership = excluded.membership, event_nid = excluded.event_nid,
            forgotten = members.forgotten AND excluded.membership IN ('leave', 'ban')",
    // A JSON list is taken apart differently.
    postgres: "
        INSERT INTO members (room_nid, user_nid, membership, event_nid, forgotten)
        SELECT (value::json->>0)::bigint, (value::json->>1)::bigint, value::json->>2, (value::json->>3)::bigint, FALSE
        FROM json_each($1)
        ON CONFLICT (room_nid, user_nid) DO UPDATE SET membership = excluded.membership, event_nid = excluded.event_nid,
            forgotten = members.forgotten AND excluded.membership IN ('leave', 'ban')");
sql!(REMOVE, "DELETE FROM members WHERE room_nid = $1 AND user_nid = $2");
sql!(
    ONE,
    "
    SELECT room_nid, user_nid, membership, event_nid, forgotten FROM members
    WHERE room_nid = $1 AND user_nid = $2"
);
sql!(
    OF_USERS,
    "
    SELECT room_nid, user_nid, membership, event_nid, forgotten FROM members
    WHERE room_nid = $1 AND user_nid IN (SELECT CAST(value AS BIGINT) FROM json_each($2))"
);
sql!(
    OF_ROOM,
    "
    SELECT room_nid, user_nid, membership, event_nid, forgotten FROM members WHERE room_nid = $1"
);
sql!(
    JOINED_LOCAL,
    "
    SELECT m.user_nid FROM members AS m JOIN users AS u ON u.nid = m.user_nid
    WHERE m.room_nid = $1 AND m.membership = 'join' AND u.is_local ORDER BY m.user_nid"
);
sql!(
    WITH_MEMBERSHIP,
    "
    SELECT user_nid FROM members WHERE room_nid = $1 AND membership = $2 ORDER BY user_nid"
);
sql!(
    JOINED_SERVERS,
    "
    SELECT DISTINCT u.server_nid FROM members AS m JOIN users AS u ON u.nid = m.user_nid
    WHERE m.room_nid = $1 AND m.membership = 'join'"
);
sql!(
    SERVERS_OF_USERS_ROOMS,
    "
    SELECT DISTINCT u.server_nid FROM members AS mine
    JOIN members AS m ON m.room_nid = mine.room_nid AND m.membership = 'join'
    JOIN users AS u ON u.nid = m.user_nid
    WHERE mine.user_nid = $1 AND mine.membership = 'join'"
);
sql!(
    ROOMS_BY_MEMBERSHIP,
    "
    SELECT room_nid FROM members WHERE user_nid = $1 AND membership = $2 AND NOT forgotten ORDER BY room_nid"
);
sql!(
    OF_USER,
    "
    SELECT room_nid, user_nid, membership, event_nid, forgotten FROM members
    WHERE user_nid = $1 ORDER BY room_nid"
);
sql!(
    OF_USER_SINCE,
    "
    SELECT m.room_nid, m.user_nid, m.membership, m.event_nid, m.forgotten, c.pos, c.prev_event_nid
    FROM members AS m LEFT JOIN state_changes AS c
        ON c.state_key_nid = $2 AND c.room_nid = m.room_nid AND c.pos > $3 AND c.pos <= $4
    WHERE m.user_nid = $1 ORDER BY m.room_nid, c.pos"
);
sql!(
    SHARED_ROOMS,
    "
    SELECT a.room_nid FROM members AS a JOIN members AS b ON b.room_nid = a.room_nid
    WHERE a.user_nid = $1 AND a.membership = 'join' AND b.user_nid = $2 AND b.membership = 'join'
    ORDER BY a.room_nid"
);
sql!(
    SHARES,
    "
    SELECT a.room_nid FROM members AS a JOIN members AS b ON b.room_nid = a.room_nid
    WHERE a.user_nid = $1 AND a.membership = 'join' AND b.user_nid = $2 AND b.membership = 'join' LIMIT 1"
);
sql!(
    SHARING,
    "
    SELECT DISTINCT b.user_nid FROM members AS a JOIN members AS b ON b.room_nid = a.room_nid
    WHERE a.user_nid = $1 AND a.membership = 'join' AND b.membership = 'join' AND b.user_nid <> $1
    ORDER BY b.user_nid"
);
sql!(
    COUNT,
    "
    SELECT membership, count(*) AS number FROM members WHERE room_nid = $1 GROUP BY membership"
);
sql!(
    FORGET,
    "
    UPDATE members SET forgotten = TRUE
    WHERE room_nid = $1 AND user_nid = $2 AND membership IN ('leave', 'ban')"
);

fn flat(rows: Vec<(i64,)>) -> Vec<i64> {
    rows.into_iter().map(|(nid,)| nid).collect()
}

/// Write memberships, several in one statement; a user must not be there twice. Joining, inviting and knocking undo a
/// forgetting.
///
/// # Errors
/// The driver's.
pub async fn put(tx: &mut Tx, members: &[NewMember<'_>]) -> Result<()> {
    if members.is_empty() {
        return Ok(());
    }
    let rows: Vec<_> = members.iter().map(|m| (m.room_nid, m.user_nid, m.membership, m.event_nid)).collect();
    execute!(tx, PUT, json_list(&rows))?;
    Ok(())
}

/// Remove a membership that is no longer in the room's state.
///
/// # Errors
/// The driver's.
pub async fn remove(tx: &mut Tx, room_nid: i64, user_nid: i64) -> Result<()> {
    execute!(tx, REMOVE, room_nid, user_nid)?;
    Ok(())
}

/// A user's place in a room; `None` when the room's state never named them.
///
/// # Errors
/// The driver's.
pub async fn membership(tx: &mut Tx, room_nid: i64, user_nid: i64) -> Result<Option<Member>> {
    fetch_optional!(tx, ONE, room_nid, user_nid)
}

/// The places of several users in a room, in no order.
///
/// # Errors
/// The driver's.
pub async fn memberships(tx: &mut Tx, room_nid: i64, user_nids: &[i64]) -> Result<Vec<Member>> {
    fetch_all!(tx, OF_USERS, room_nid, json_list(user_nids))
}

/// True when the user is joined.
///
/// # Errors
/// The driver's.
pub async fn is_joined(tx: &mut Tx, room_nid: i64, user_nid: i64) -> Result<bool> {
    Ok(membership(tx, room_nid, user_nid).await?.is_some_and(|member| member.membership == "join"))
}

/// Everybody the room's state names, in no order.
///
/// # Errors
/// The driver's.
pub async fn of_room(tx: &mut Tx, room_nid: i64) -> Result<Vec<Member>> {
    fetch_all!(tx, OF_ROOM, room_nid)
}

/// Our own users joined to a room.
///
/// # Errors
/// The driver's.
pub async fn joined_local(tx: &mut Tx, room_nid: i64) -> Result<Vec<i64>> {
    Ok(flat(fetch_all!(tx, JOINED_LOCAL, room_nid)?))
}

/// Users of a room with this membership, ours and others'.
///
/// # Errors
/// The driver's.
pub async fn with_membership(tx: &mut Tx, room_nid: i64, membership: &str) -> Result<Vec<i64>> {
    Ok(flat(fetch_all!(tx, WITH_MEMBERSHIP, room_nid, membership)?))
}

/// Servers with a joined user in a room, ours included.
///
/// # Errors
/// The driver's.
pub async fn joined_servers(tx: &mut Tx, room_nid: i64) -> Result<Vec<i64>> {
    Ok(flat(fetch_all!(tx, JOINED_SERVERS, room_nid)?))
}

/// Servers that share a room with a user, ours included.
///
/// # Errors
/// The driver's.
pub async fn servers_of_rooms_of(tx: &mut Tx, user_nid: i64) -> Result<Vec<i64>> {
    Ok(flat(fetch_all!(tx, SERVERS_OF_USERS_ROOMS, user_nid)?))
}

/// Rooms in which a user has this membership, forgotten ones left out.
///
/// # Errors
/// The driver's.
pub async fn rooms_of(tx: &mut Tx, user_nid: i64, membership: &str) -> Result<Vec<i64>> {
    Ok(flat(fetch_all!(tx, ROOMS_BY_MEMBERSHIP, user_nid, membership)?))
}

/// All memberships of a user, forgotten ones too, ordered by room.
///
/// # Errors
/// The driver's.
pub async fn of_user(tx: &mut Tx, user_nid: i64) -> Result<Vec<Member>> {
    fetch_all!(tx, OF_USER, user_nid)
}

/// All memberships of a user as [`of_user`], with what became of each in `since < pos <= until`: a row for each change, or one
/// without. `state_key_nid` is that of the user's member events.
///
/// # Errors
/// The driver's.
pub async fn of_user_since(
    tx: &mut Tx,
    user_nid: i64,
    state_key_nid: i64,
    since: i64,
    until: i64,
) -> Result<Vec<MemberChange>> {
    fetch_all!(tx, OF_USER_SINCE, user_nid, state_key_nid, since, until)
}

/// Rooms to which both users are joined.
///
/// # Errors
/// The driver's.
pub async fn shared_rooms(tx: &mut Tx, one: i64, other: i64) -> Result<Vec<i64>> {
    Ok(flat(fetch_all!(tx, SHARED_ROOMS, one, other)?))
}

/// True when both users are joined to some room.
///
/// # Errors
/// The driver's.
pub async fn shares_a_room(tx: &mut Tx, one: i64, other: i64) -> Result<bool> {
    let row: Option<(i64,)> = fetch_optional!(tx, SHARES, one, other)?;
    Ok(row.is_some())
}

/// Users who share a room with `user_nid`, themselves left out.
///
/// # Errors
/// The driver's.
pub async fn sharing_with(tx: &mut Tx, user_nid: i64) -> Result<Vec<i64>> {
    Ok(flat(fetch_all!(tx, SHARING, user_nid)?))
}

/// How many members a room has, by membership.
///
/// # Errors
/// The driver's.
pub async fn count(tx: &mut Tx, room_nid: i64) -> Result<HashMap<String, i64>> {
    let rows: Vec<(String, i64)> = fetch_all!(tx, COUNT, room_nid)?;
    Ok(rows.into_iter().collect())
}

/// Forget a room one has left. False when the user has not left it.
///
/// # Errors
/// The driver's.
pub async fn forget(tx: &mut Tx, room_nid: i64, user_nid: i64) -> Result<bool> {
    Ok(execute!(tx, FORGET, room_nid, user_nid)? == 1)
}

/// A member with what delivery needs to know.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Inhabitant {
    /// The room.
    pub room_nid: i64,
    /// The user.
    pub user_nid: i64,
    /// `join` or `invite`.
    pub membership: String,
    /// The user's server.
    pub server_nid: i64,
    /// Whether it is ours.
    pub is_local: bool,
}

sql!(
    INHABITANTS,
    "
    SELECT m.room_nid, m.user_nid, m.membership, u.server_nid, u.is_local
    FROM members AS m JOIN users AS u ON u.nid = m.user_nid
    WHERE m.room_nid IN (SELECT CAST(value AS BIGINT) FROM json_each($1)) AND m.membership IN ('join', 'invite')
    ORDER BY m.room_nid, m.user_nid"
);

/// Joined and invited members of rooms, by room and ascending number.
///
/// # Errors
/// The driver's.
pub async fn inhabitants(tx: &mut Tx, rooms: &[i64]) -> Result<Vec<Inhabitant>> {
    fetch_all!(tx, INHABITANTS, json_list(rooms))
}

sql!(
    HEROES,
    "
    SELECT room_nid, user_nid FROM (
        SELECT m.room_nid, m.user_nid, ROW_NUMBER() OVER (PARTITION BY m.room_nid ORDER BY
            CASE m.membership WHEN 'join' THEN 0 WHEN 'invite' THEN 1 ELSE 2 END, m.event_nid) AS nth
        FROM members AS m
        WHERE m.room_nid IN (SELECT CAST(value AS BIGINT) FROM json_each($1)) AND m.user_nid <> $2
            AND m.membership IN ('join', 'invite')
    ) AS ranked WHERE nth <= $3 ORDER BY room_nid, nth"
);

/// The first members of rooms, by whom a room without a name is called: (room, user), at most `limit` each, without `reader_nid`.
///
/// # Errors
/// The driver's.
pub async fn heroes(tx: &mut Tx, rooms: &[i64], reader_nid: i64, limit: i64) -> Result<Vec<(i64, i64)>> {
    fetch_all!(tx, HEROES, json_list(rooms), reader_nid, limit)
}
