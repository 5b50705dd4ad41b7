//! Table `aliases`: names of rooms on this server.
//!
//! | column | meaning |
//! |---|---|
//! | alias | key, `#name:server` |
//! | room_id | the room; empty while a room that wants the name is being made |
//! | creator | who made the alias |

use crate::{Result, Tx};

/// A name of a room.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Alias {
    /// The name.
    pub alias: String,
    /// The room.
    pub room_id: String,
    /// Who made the alias.
    pub creator: String,
}

sql!(
    PUT,
    "
    INSERT INTO aliases (alias, room_id, creator) VALUES ($1, $2, $3)
    ON CONFLICT (alias) DO NOTHING"
);
sql!(
    SETTLE,
    "
    INSERT INTO aliases (alias, room_id, creator) VALUES ($1, $2, $3)
    ON CONFLICT (alias) DO UPDATE SET room_id = excluded.room_id WHERE aliases.room_id = ''"
);
sql!(ONE, "SELECT alias, room_id, creator FROM aliases WHERE alias = $1 AND room_id <> ''");
sql!(OF_ROOM, "SELECT alias, room_id, creator FROM aliases WHERE room_id = $1 ORDER BY alias");
sql!(MOVE_ALL, "UPDATE aliases SET room_id = $2 WHERE room_id = $1");
sql!(REMOVE, "DELETE FROM aliases WHERE alias = $1");
sql!(DROP_CLAIMS, "DELETE FROM aliases WHERE room_id = ''");

/// Give a room a name. False when the name is taken.
///
/// # Errors
/// The driver's.
pub async fn put(tx: &mut Tx, alias: &str, room_id: &str, creator: &str) -> Result<bool> {
    Ok(execute!(tx, PUT, alias, room_id, creator)? == 1)
}

/// Keep a name for a room that is being made. False when the name is taken. [`settle`] or [`remove`] follows.
///
/// # Errors
/// The driver's.
pub async fn claim(tx: &mut Tx, alias: &str, creator: &str) -> Result<bool> {
    put(tx, alias, "", creator).await
}

/// Give a claimed name to its room. False when somebody else got the name meanwhile.
///
/// # Errors
/// The driver's.
pub async fn settle(tx: &mut Tx, alias: &str, room_id: &str, creator: &str) -> Result<bool> {
    Ok(execute!(tx, SETTLE, alias, room_id, creator)? == 1)
}

/// Forget claims whose rooms were never made, because the server stopped in between.
///
/// # Errors
/// The driver's.
pub async fn drop_claims(tx: &mut Tx) -> Result<u64> {
    execute!(tx, DROP_CLAIMS)
}

/// The room a name stands for.
///
/// # Errors
/// The driver's.
pub async fn one(tx: &mut Tx, alias: &str) -> Result<Option<Alias>> {
    fetch_optional!(tx, ONE, alias)
}

/// All names of a room, sorted.
///
/// # Errors
/// The driver's.
pub async fn of_room(tx: &mut Tx, room_id: &str) -> Result<Vec<Alias>> {
    fetch_all!(tx, OF_ROOM, room_id)
}

/// Take a name away. False when there was none.
///
/// # Errors
/// The driver's.
pub async fn remove(tx: &mut Tx, alias: &str) -> Result<bool> {
    Ok(execute!(tx, REMOVE, alias)? == 1)
}

/// Give all names of a room to another.
///
/// # Errors
/// The driver's.
pub async fn move_all(tx: &mut Tx, from: &str, to: &str) -> Result<u64> {
    execute!(tx, MOVE_ALL, from, to)
}
