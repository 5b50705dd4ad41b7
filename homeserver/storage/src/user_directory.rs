//! Finding users by id or name. No table of its own: `users`, `members`, `profile_fields`, `room_facts`.
//!
//! Somebody can be found by those who share a room with them, and by everybody when they are in a room that anybody may join or
//! read, or that the directory lists.

use crate::{Result, Tx};

/// A user found.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Found {
    /// Their number.
    pub user_nid: i64,
    /// Their id.
    pub user_id: String,
    /// True when they are ours.
    pub is_local: bool,
}

// The searcher knows themselves. Patterns are for LIKE with `!` to escape: the term in small letters, as typed, with a capital, in
// capitals; SQLite folds only the letters of ASCII.
sql!(
    MATCHING,
    "
    SELECT u.nid AS user_nid, u.user_id, u.is_local FROM users AS u
    WHERE u.nid <> $1 AND (lower(u.user_id) LIKE $2 ESCAPE '!' OR EXISTS (
            SELECT 1 FROM profile_fields AS f WHERE f.user_nid = u.nid AND f.field = 'displayname'
                AND (lower(f.value) LIKE $2 ESCAPE '!' OR f.value LIKE $3 ESCAPE '!' OR f.value LIKE $4 ESCAPE '!'
                    OR f.value LIKE $5 ESCAPE '!')))
        AND (NOT u.is_local OR NOT EXISTS (
            SELECT 1 FROM accounts AS a WHERE a.user_nid = u.nid AND (a.deactivated_ms IS NOT NULL OR a.is_locked)))
        AND EXISTS (
            SELECT 1 FROM members AS m LEFT JOIN room_facts AS r ON r.room_nid = m.room_nid
            WHERE m.user_nid = u.nid AND m.membership = 'join' AND (
                r.join_rule = 'public' OR r.history_visibility = 'world_readable' OR r.is_public
                OR EXISTS (SELECT 1 FROM members AS mine
                    WHERE mine.room_nid = m.room_nid AND mine.user_nid = $1 AND mine.membership = 'join')))
    ORDER BY CASE WHEN lower(u.user_id) LIKE $2 ESCAPE '!' THEN 0 ELSE 1 END, u.is_local DESC, u.user_id LIMIT $6"
);
sql!(
    MEMBER_EVENTS,
    "
    SELECT m.user_nid, max(m.event_nid) AS event_nid FROM members AS m
    JOIN users AS u ON u.nid = m.user_nid AND NOT u.is_local
    LEFT JOIN room_facts AS r ON r.room_nid = m.room_nid
    WHERE m.membership = 'join' AND (
        r.join_rule = 'public' OR r.history_visibility = 'world_readable' OR r.is_public
        OR EXISTS (SELECT 1 FROM members AS mine
            WHERE mine.room_nid = m.room_nid AND mine.user_nid = $1 AND mine.membership = 'join'))
    GROUP BY m.user_nid ORDER BY m.user_nid LIMIT $2"
);

/// What to look for.
#[derive(Debug, Clone, Copy)]
pub struct Patterns<'a> {
    /// In small letters.
    pub small: &'a str,
    /// As typed.
    pub typed: &'a str,
    /// With a capital first.
    pub capital: &'a str,
    /// In capitals.
    pub capitals: &'a str,
}

/// Users whom `searcher_nid` can find whose id or (for our own) name matches, at most `limit`.
///
/// # Errors
/// The driver's.
pub async fn matching(tx: &mut Tx, searcher_nid: i64, wanted: Patterns<'_>, limit: i64) -> Result<Vec<Found>> {
    fetch_all!(tx, MATCHING, searcher_nid, wanted.small, wanted.typed, wanted.capital, wanted.capitals, limit)
}

/// Other servers' users whom `searcher_nid` can find, at most `limit`, each with a member event in which they can be seen.
///
/// # Errors
/// The driver's.
pub async fn remote_members(tx: &mut Tx, searcher_nid: i64, limit: i64) -> Result<Vec<(i64, i64)>> {
    fetch_all!(tx, MEMBER_EVENTS, searcher_nid, limit)
}
