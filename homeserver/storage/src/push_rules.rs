//! Push rules as account data (`account_data`, kind `m.push_rules`): the whole ruleset of a user, as the client sees it.
//!
//! Users without a row have the server's default rules.

use crate::{Result, Tx, numbers::json_list};

sql!(
    OF_USERS,
    "
    SELECT user_nid, body FROM account_data
    WHERE room_nid = 0 AND kind = 'm.push_rules' AND user_nid IN (SELECT CAST(value AS BIGINT) FROM json_each($1))"
);
sql!(
    PUT,
    "
    INSERT INTO account_data (user_nid, room_nid, kind, body, pos)
    VALUES ($1, 0, 'm.push_rules', $2, (SELECT next FROM next_position))
    ON CONFLICT (user_nid, room_nid, kind) DO UPDATE SET body = excluded.body, pos = excluded.pos
    WHERE account_data.body = $3"
);

/// The stored rulesets of users: (user, content of `m.push_rules`). Users on default rules are absent.
///
/// # Errors
/// The driver's.
pub async fn of_users(tx: &mut Tx, user_nids: &[i64]) -> Result<Vec<(i64, String)>> {
    fetch_all!(tx, OF_USERS, json_list(user_nids))
}

/// Store a user's ruleset, as the content of `m.push_rules`, in place of `before` (nothing: of none). False when something else
/// is stored by now.
///
/// # Errors
/// The driver's.
pub async fn put(tx: &mut Tx, user_nid: i64, body: &str, before: Option<&str>) -> Result<bool> {
    let rows = execute!(tx, PUT, user_nid, body, before)?;
    if rows == 1 {
        tx.streamed(1);
    }
    Ok(rows == 1)
}
