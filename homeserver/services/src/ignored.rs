//! Whom a user ignores, from their account data `m.ignored_user_list`, kept in memory until their account data changes.
//!
//! Source: Client-Server API, "Ignoring Users".

use std::{collections::HashSet, sync::Arc};

use ruma::OwnedUserId;
use serde::{Deserialize, de::IgnoredAny};
use storage::account_data;

use crate::{Context, Result, memory::Memory};

/// Users whose lists are kept in memory.
const CACHED_MAX: usize = 10_000;
/// The account data with the list.
const KIND: &str = "m.ignored_user_list";

/// The users somebody ignores.
pub type List = Arc<HashSet<OwnedUserId>>;

/// Whom users ignore. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Ignored {
    cx: Context,
    cached: Arc<Memory<i64, List>>,
}

impl Ignored {
    /// Listen to the news.
    #[must_use]
    pub fn start(cx: Context) -> Self {
        let cached = Arc::new(Memory::new(CACHED_MAX));
        let listener = Arc::clone(&cached);
        cx.notify.on_change(move |change| change.users.iter().for_each(|nid| listener.forget(nid)));
        Self { cx, cached }
    }

    /// Whom a user of ours ignores.
    ///
    /// # Errors
    /// The database's.
    pub async fn of(&self, user_nid: i64) -> Result<List> {
        if let Some(list) = self.cached.get(&user_nid) {
            return Ok(list);
        }
        let moment = self.cached.moment();
        let body = account_data::one(&mut self.cx.store.read().await?, user_nid, 0, KIND).await?;
        let list = Arc::new(body.map(|body| listed(&body)).unwrap_or_default());
        self.cached.keep(moment, user_nid, Arc::clone(&list));
        Ok(list)
    }
}

/// The users in a list; whatever is no user id is left out.
fn listed(body: &str) -> HashSet<OwnedUserId> {
    #[derive(Deserialize)]
    struct Content {
        ignored_users: std::collections::HashMap<String, IgnoredAny>,
    }
    let content: Option<Content> = serde_json::from_str(body).ok();
    content.map_or_else(HashSet::new, |c| c.ignored_users.into_keys().filter_map(|id| id.try_into().ok()).collect())
}
