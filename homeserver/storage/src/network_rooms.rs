//! Table `network_rooms`: rooms that application services list for the networks they join to this one.
//!
//! | column | meaning |
//! |---|---|
//! | instance | key; the application service and its network, as clients name them (`third_party_instance_id`) |
//! | room_nid | key; the room |

use crate::{
    Result, Tx,
    rooms::{Facts, Rank},
};

/// Stands for every list there is, that of this server's own rooms included.
pub const ALL: &str = "*";

sql!(PUT, "INSERT INTO network_rooms (instance, room_nid) VALUES ($1, $2) ON CONFLICT (instance, room_nid) DO NOTHING");
sql!(REMOVE, "DELETE FROM network_rooms WHERE instance = $1 AND room_nid = $2");
sql!(
    BELOW,
    "
    SELECT room_nid, kind, creator, name, topic, avatar_url, canonical_alias, join_rule, allowed_rooms, guest_access,
        history_visibility, encryption, successor, joined_count, invited_count, is_public
    FROM room_facts WHERE (joined_count, room_nid) < ($1, $2) AND ((is_public AND $4 = '*')
        OR room_nid IN (SELECT n.room_nid FROM network_rooms AS n WHERE n.instance = $4 OR $4 = '*'))
    ORDER BY joined_count DESC, room_nid DESC LIMIT $3"
);
sql!(
    ABOVE,
    "
    SELECT room_nid, kind, creator, name, topic, avatar_url, canonical_alias, join_rule, allowed_rooms, guest_access,
        history_visibility, encryption, successor, joined_count, invited_count, is_public
    FROM room_facts WHERE (joined_count, room_nid) > ($1, $2) AND ((is_public AND $4 = '*')
        OR room_nid IN (SELECT n.room_nid FROM network_rooms AS n WHERE n.instance = $4 OR $4 = '*'))
    ORDER BY joined_count, room_nid LIMIT $3"
);
sql!(
    COUNT,
    "
    SELECT count(*) AS number FROM room_facts WHERE (is_public AND $1 = '*')
        OR room_nid IN (SELECT n.room_nid FROM network_rooms AS n WHERE n.instance = $1 OR $1 = '*')"
);

/// Put a room on a network's list, or take it off.
///
/// # Errors
/// The driver's.
pub async fn set(tx: &mut Tx, instance: &str, room_nid: i64, is_listed: bool) -> Result<()> {
    if is_listed {
        execute!(tx, PUT, instance, room_nid)?;
    } else {
        execute!(tx, REMOVE, instance, room_nid)?;
    }
    Ok(())
}

/// As [`crate::rooms::public`], of a network's list, or of all ([`ALL`]).
///
/// # Errors
/// The driver's.
pub async fn listed(tx: &mut Tx, instance: &str, from: Rank, above: bool, limit: i64) -> Result<Vec<Facts>> {
    if above {
        fetch_all!(tx, ABOVE, from.0, from.1, limit, instance)
    } else {
        fetch_all!(tx, BELOW, from.0, from.1, limit, instance)
    }
}

/// How many rooms such a list has.
///
/// # Errors
/// The driver's.
pub async fn count(tx: &mut Tx, instance: &str) -> Result<i64> {
    let row: Option<(i64,)> = fetch_optional!(tx, COUNT, instance)?;
    Ok(row.map_or(0, |(number,)| number))
}
