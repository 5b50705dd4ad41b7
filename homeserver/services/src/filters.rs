//! What clients want to see in sync. A filter's id is a digest of its content: the same filter has the same id, and none ever
//! changes, so those in use stay in memory.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use quick_cache::sync::Cache;
use ruma::UserId;
use sha2::{Digest as _, Sha256};
use storage::filters;

use crate::{Context, Error, Result, accounts::User};

/// One filter.
const FILTER_BYTES_MAX: usize = 64 << 10;
/// Filters kept in memory.
const CACHED_MAX: usize = 2_000;
/// Bytes of the digest that make the id: 72 bits, for one user's few filters.
const ID_BYTES: usize = 9;

/// Filters. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Filters {
    cx: Context,
    cached: Arc<Cache<(i64, String), Arc<str>>>,
}

impl Filters {
    /// On `cx`.
    #[must_use]
    pub fn new(cx: Context) -> Self {
        Self { cx, cached: Arc::new(Cache::new(CACHED_MAX)) }
    }

    /// Keep a filter of the caller's. `filter`: JSON, found to be a filter. Returns its id.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for another user; [`Error::TooLarge`].
    pub async fn create(&self, user: &User, owner: &UserId, filter: &str) -> Result<String> {
        user.must_be(owner)?;
        if filter.len() > FILTER_BYTES_MAX {
            return Err(Error::TooLarge(format!("a filter has at most {FILTER_BYTES_MAX} bytes")));
        }
        let digest = Sha256::digest(filter);
        let filter_id = URL_SAFE_NO_PAD.encode(&digest[..ID_BYTES]);
        let mut tx = self.cx.store.begin().await?;
        filters::put(&mut tx, user.nid, &filter_id, filter).await?;
        tx.commit().await?;
        Ok(filter_id)
    }

    /// A filter of the caller's, JSON.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for another user; [`Error::NotFound`].
    pub async fn get(&self, user: &User, owner: &UserId, filter_id: &str) -> Result<Arc<str>> {
        user.must_be(owner)?;
        self.of_user(user.nid, filter_id).await?.ok_or(Error::NotFound("filter"))
    }

    /// A user's filter, JSON, for sync.
    ///
    /// # Errors
    /// The database's.
    pub async fn of_user(&self, user_nid: i64, filter_id: &str) -> Result<Option<Arc<str>>> {
        let key = (user_nid, filter_id.to_owned());
        if let Some(filter) = self.cached.get(&key) {
            return Ok(Some(filter));
        }
        let mut tx = self.cx.store.read().await?;
        let filter: Option<Arc<str>> = filters::one(&mut tx, user_nid, filter_id).await?.map(Into::into);
        if let Some(filter) = &filter {
            self.cached.insert(key, Arc::clone(filter));
        }
        Ok(filter)
    }
}
