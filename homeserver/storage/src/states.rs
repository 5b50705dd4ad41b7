//! Table `states`: snapshots of room state, stored as layers.
//!
//! A snapshot is a chain of at most four rows; `parent_nid` is the layer below. The bytes of a layer are written and read by
//! [`room::state`]. Snapshots never change.

use crate::{Result, Tx, numbers::json_list};

sql!(PUT, "INSERT INTO states (nid, room_nid, parent_nid, layer) VALUES ($1, $2, $3, $4)");
sql!(
    CHAIN,
    "
    WITH RECURSIVE chain (nid, parent_nid, layer, height) AS (
        SELECT nid, parent_nid, layer, 0 FROM states WHERE nid = $1
        UNION ALL
        SELECT s.nid, s.parent_nid, s.layer, chain.height + 1
        FROM states AS s JOIN chain ON s.nid = chain.parent_nid
        WHERE chain.height < 16
    )
    SELECT nid, layer FROM chain ORDER BY height DESC"
);
sql!(
    CHAINS,
    "
    WITH RECURSIVE chain (top, nid, parent_nid, layer, height) AS (
        SELECT nid, nid, parent_nid, layer, 0 FROM states
        WHERE nid IN (SELECT CAST(value AS BIGINT) FROM json_each($1))
        UNION ALL
        SELECT chain.top, s.nid, s.parent_nid, s.layer, chain.height + 1
        FROM states AS s JOIN chain ON s.nid = chain.parent_nid
        WHERE chain.height < 16
    )
    SELECT top, nid, layer FROM chain ORDER BY top, height DESC"
);

/// A layer to store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewState {
    /// The snapshot's number.
    pub nid: i64,
    /// The room.
    pub room_nid: i64,
    /// The layer below, if any.
    pub parent_nid: Option<i64>,
    /// What [`room::state`] encoded.
    pub layer: Vec<u8>,
}

/// Store a layer.
///
/// # Errors
/// The driver's.
pub async fn put(tx: &mut Tx, state: &NewState) -> Result<()> {
    execute!(tx, PUT, state.nid, state.room_nid, state.parent_nid, state.layer.as_slice())?;
    Ok(())
}

/// The layers of snapshot `nid` with their numbers, lowest first. Empty when there is no such snapshot.
///
/// # Errors
/// The driver's.
pub async fn chain(tx: &mut Tx, nid: i64) -> Result<Vec<(i64, Vec<u8>)>> {
    fetch_all!(tx, CHAIN, nid)
}

/// The layers of several snapshots: (snapshot, layer's number, layer), grouped by snapshot, lowest first.
///
/// # Errors
/// The driver's.
pub async fn chains(tx: &mut Tx, nids: &[i64]) -> Result<Vec<(i64, i64, Vec<u8>)>> {
    fetch_all!(tx, CHAINS, json_list(nids))
}
