//! The number on an application's icon: what a user has not read, in all their rooms.

use futures_util::future::BoxFuture;
use storage::members;

use super::{Sync, unread};
use crate::{Result, push::gateway::Unread};

impl Unread for Sync {
    fn notifications(&self, user_nid: i64) -> BoxFuture<'_, Result<u64>> {
        Box::pin(async move {
            let joined = members::rooms_of(&mut self.cx.store.read().await?, user_nid, "join").await?;
            let rooms = self.from.timeline.now_many(&joined).await?;
            let rooms: Vec<_> = rooms.iter().map(|room| &**room).collect();
            let counts = unread::count(&self.cx, &self.from.push_rules, user_nid, &rooms).await?;
            let sum: i64 = counts.values().map(|unread| unread.all().notification_count).sum();
            Ok(u64::try_from(sum).unwrap_or(0))
        })
    }
}
