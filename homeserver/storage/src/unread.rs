//! What a user has not read, from the tables `read_marks`, `push_items`, `threads` and `retractions` at once.
//!
//! | column of retractions | meaning |
//! |---|---|
//! | room_nid, thread_nid, seq | key: the place of a redacted event among the notifications of its lane |

use crate::{Result, Tx, numbers::json_list};

/// What a [`Row`] says.
pub mod kind {
    /// `number`: notifying events of the lane up to the user's read mark.
    pub const MARK: i64 = 0;
    /// `number`: what the lane's rows add to its count; `rows`: rows that notify at all; `loud`: highlights.
    pub const ITEMS: i64 = 1;
    /// `number`: notifying events of the thread so far.
    pub const THREAD: i64 = 2;
    /// `number`: notifying events of the lane after the user's read mark that have been redacted.
    pub const RETRACTED: i64 = 3;
}

/// One fact about one lane of one room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct Row {
    /// See [`kind`].
    pub kind: i64,
    /// The room.
    pub room_nid: i64,
    /// Root of the thread, or 0 for the main timeline.
    pub thread_nid: i64,
    /// See [`kind`].
    pub number: i64,
    /// See [`kind`].
    pub rows: i64,
    /// See [`kind`].
    pub loud: i64,
}

// Whoever writes has read, and then only their mark moves: rows of `push_items` that it has passed no longer count, nor do those
// of redacted events (flag 8 of `events`).
sql!(
    OF_ROOMS,
    "
    WITH asked AS (SELECT CAST(value AS BIGINT) AS room_nid FROM json_each($2))
    SELECT CAST(0 AS BIGINT) AS kind, r.room_nid, r.thread_nid, r.seq AS number, CAST(0 AS BIGINT) AS rows,
        CAST(0 AS BIGINT) AS loud
    FROM asked AS a JOIN read_marks AS r ON r.user_nid = $1 AND r.room_nid = a.room_nid
    UNION ALL
    SELECT CAST(1 AS BIGINT), p.room_nid, p.thread_nid, CAST(sum(p.notify) AS BIGINT),
        CAST(sum(CASE WHEN p.notify >= 0 THEN 1 ELSE 0 END) AS BIGINT),
        CAST(sum(CASE WHEN p.highlight THEN 1 ELSE 0 END) AS BIGINT)
    FROM asked AS a JOIN push_items AS p ON p.user_nid = $1 AND p.room_nid = a.room_nid
    JOIN timeline AS t ON t.event_nid = p.event_nid
    JOIN events AS e ON e.nid = p.event_nid AND e.flags & 8 = 0
    LEFT JOIN read_marks AS r ON r.user_nid = p.user_nid AND r.room_nid = p.room_nid AND r.thread_nid = p.thread_nid
    LEFT JOIN timeline AS m ON m.event_nid = r.event_nid
    WHERE t.pos > coalesce(m.pos, 0)
    GROUP BY p.room_nid, p.thread_nid
    UNION ALL
    SELECT CAST(2 AS BIGINT), t.room_nid, t.root_nid, t.notify_seq, CAST(0 AS BIGINT), CAST(0 AS BIGINT)
    FROM asked AS a JOIN threads AS t ON t.room_nid = a.room_nid WHERE t.notify_seq > 0
    UNION ALL
    SELECT CAST(3 AS BIGINT), x.room_nid, x.thread_nid, CAST(count(*) AS BIGINT), CAST(0 AS BIGINT), CAST(0 AS BIGINT)
    FROM asked AS a JOIN retractions AS x ON x.room_nid = a.room_nid
    LEFT JOIN read_marks AS r ON r.user_nid = $1 AND r.room_nid = x.room_nid AND r.thread_nid = x.thread_nid
    WHERE x.seq > coalesce(r.seq, 0)
    GROUP BY x.room_nid, x.thread_nid"
);
// Flag 4 of the stream: the event notified by default.
sql!(
    RETRACT,
    "
    INSERT INTO retractions (room_nid, thread_nid, seq)
    SELECT room_nid, thread_nid, seq FROM timeline WHERE event_nid = $1 AND flags & 4 = 4
    ON CONFLICT (room_nid, thread_nid, seq) DO NOTHING"
);

/// An event is redacted: whoever has not read it is not notified of it any more.
///
/// # Errors
/// The driver's.
pub async fn retract(tx: &mut Tx, event_nid: i64) -> Result<()> {
    execute!(tx, RETRACT, event_nid)?;
    Ok(())
}

/// All that counts what a user has not read of these rooms. One statement, however many they are.
///
/// # Errors
/// The driver's.
pub async fn of_rooms(tx: &mut Tx, user_nid: i64, rooms: &[i64]) -> Result<Vec<Row>> {
    fetch_all!(tx, OF_ROOMS, user_nid, json_list(rooms))
}
