//! Tables `search_texts` and `search_progress`: the words of messages, room names and topics.
//!
//! | column | meaning |
//! |---|---|
//! | room_nid, event_nid | key |
//! | pos | the event's position |
//! | part | which part of the content: `content.body`, `content.name` or `content.topic` |
//! | words | its words, each between spaces |
//!
//! Filled from the stream in order, up to the position in `search_progress`. A row may outlive its event's content (redaction):
//! whoever shows a match looks at the event itself.

use crate::{Result, Tx, numbers::json_list};

/// The words of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewText {
    /// The room.
    pub room_nid: i64,
    /// The event.
    pub event_nid: i64,
    /// Its position.
    pub pos: i64,
    /// Which part of the content.
    pub part: &'static str,
    /// Its words, each between spaces.
    pub words: String,
}

/// A match.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Found {
    /// The event.
    pub event_nid: i64,
    /// Its position.
    pub pos: i64,
    /// The words of the part searched.
    pub words: String,
}

sql!(PROGRESS, "SELECT pos FROM search_progress WHERE name = 'stream'");
sql!(ADVANCE, "UPDATE search_progress SET pos = $2 WHERE name = 'stream' AND pos = $1");
sql!(
    PUT,
    "
    INSERT INTO search_texts (room_nid, event_nid, pos, part, words) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (room_nid, event_nid) DO NOTHING"
);
// The first three words of a search are looked for here, the others by the caller: a statement's text is fixed.
sql!(
    MATCHING,
    "
    SELECT event_nid, pos, words FROM search_texts
    WHERE room_nid IN (SELECT CAST(value AS BIGINT) FROM json_each($1)) AND part IN (SELECT value FROM json_each($2))
        AND words LIKE $3 AND words LIKE $4 AND words LIKE $5
    ORDER BY pos DESC LIMIT $6"
);

/// The position up to which the stream has been read.
///
/// # Errors
/// The driver's.
pub async fn progress(tx: &mut Tx) -> Result<i64> {
    let row: Option<(i64,)> = fetch_optional!(tx, PROGRESS)?;
    Ok(row.map_or(0, |(pos,)| pos))
}

/// Note that the stream has been read from one position to another. False when somebody else was faster.
///
/// # Errors
/// The driver's.
pub async fn advance(tx: &mut Tx, from: i64, to: i64) -> Result<bool> {
    Ok(execute!(tx, ADVANCE, from, to)? == 1)
}

/// Keep the words of an event.
///
/// # Errors
/// The driver's.
pub async fn put(tx: &mut Tx, text: &NewText) -> Result<()> {
    execute!(tx, PUT, text.room_nid, text.event_nid, text.pos, text.part, text.words.as_str())?;
    Ok(())
}

/// Matches in rooms, the newest first, at most `limit`. Each of the three patterns (for LIKE; `%` for none) must match.
///
/// # Errors
/// The driver's.
pub async fn matching(
    tx: &mut Tx,
    rooms: &[i64],
    parts: &[&str],
    patterns: [&str; 3],
    limit: i64,
) -> Result<Vec<Found>> {
    fetch_all!(tx, MATCHING, json_list(rooms), json_list(parts), patterns[0], patterns[1], patterns[2], limit)
}
