//! The notifications a user was given or would have been: found by judging past events anew.
//!
//! Nothing is stored for events that notify by default, so this walks the user's rooms backwards and asks their rules. Events
//! are judged in the room as it is now.

use std::{collections::HashMap, sync::Arc};

use storage::timeline as table;

use super::Push;
use crate::{Result, accounts::User, push_rules::Outcome, timeline::events::Stored};

/// Events judged for one page.
const EVENTS_JUDGED_MAX: i64 = 500;
/// Notifications of one page.
pub const NOTIFICATIONS_PER_PAGE_MAX: usize = 100;

/// One notification.
#[derive(Debug, Clone)]
pub struct Notification {
    /// The event's position, the token of the page after it.
    pub pos: i64,
    /// The event.
    pub event: Arc<Stored>,
    /// What the matching rule says.
    pub outcome: Outcome,
    /// Whether the user has read so far.
    pub is_read: bool,
}

/// A page of notifications.
#[derive(Debug, Clone)]
pub struct Page {
    /// The newest first.
    pub notifications: Vec<Notification>,
    /// Where the next page begins; nothing at the end.
    pub next: Option<i64>,
}

impl Push {
    /// Notifications of `user` before a position (the newest: `None`), at most `limit`, only highlights if so wished.
    ///
    /// # Errors
    /// The database's.
    pub async fn notifications(
        &self,
        user: &User,
        before: Option<i64>,
        limit: usize,
        only_highlights: bool,
    ) -> Result<Page> {
        let limit = limit.clamp(1, NOTIFICATIONS_PER_PAGE_MAX);
        let before = before.unwrap_or(i64::MAX);
        let mut tx = self.cx.store.read().await?;
        let rows = table::before_for(&mut tx, user.nid, before, EVENTS_JUDGED_MAX).await?;
        let mut rooms: Vec<i64> = rows.iter().map(|row| row.event.room_nid).collect();
        rooms.sort_unstable();
        rooms.dedup();
        let marks = table::read_marks(&mut tx, user.nid, &rooms).await?;
        drop(tx);
        let marks: HashMap<(i64, i64), i64> =
            marks.into_iter().map(|mark| ((mark.room_nid, mark.thread_nid), mark.seq)).collect();
        let is_last = i64::try_from(rows.len()).unwrap_or(i64::MAX) < EVENTS_JUDGED_MAX;
        let mut notifications = Vec::new();
        let mut reached = None;
        for row in rows {
            if notifications.len() == limit {
                return Ok(Page { notifications, next: reached });
            }
            let (pos, lane, seq) = (row.pos, (row.event.room_nid, row.thread_nid), row.seq);
            reached = Some(pos);
            let Some(event) = self.timeline.events.read(vec![row.event]).await?.pop() else { continue };
            let Some(outcome) = self.judged(user, &event).await? else { continue };
            if outcome.highlight || !only_highlights {
                let is_read = marks.get(&lane).is_some_and(|mark| seq <= *mark);
                notifications.push(Notification { pos, event, outcome, is_read });
            }
        }
        Ok(Page { notifications, next: reached.filter(|_| !is_last) })
    }

    async fn judged(&self, user: &User, event: &Stored) -> Result<Option<Outcome>> {
        let now = self.timeline.now(event.room_nid).await?;
        self.timeline.outcome(&now, event, user.nid, &user.user_id).await
    }
}
