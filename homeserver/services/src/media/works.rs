//! Fetchings and makings under way: each is done once, however many ask for it at the same time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::{Error, Result};

/// Things fetched or made at the same time; beyond it the answer is to come back later.
const WORKS_MAX: usize = 1000;
/// What those beyond are told to wait.
const BUSY_RETRY: Duration = Duration::from_secs(1);

/// Fetchings and makings under way, so that each is done once.
#[derive(Debug, Clone, Default)]
pub(super) struct Works(Arc<Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>>);

impl Works {
    /// The lock of a work.
    pub(super) fn begin(&self, name: &str) -> Result<Arc<tokio::sync::Mutex<()>>> {
        let mut works = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if works.len() >= WORKS_MAX {
            // Those that nobody holds but this map are done.
            works.retain(|_, work| Arc::strong_count(work) > 1);
            if works.len() >= WORKS_MAX {
                return Err(Error::Limited { retry_after: BUSY_RETRY });
            }
        }
        Ok(Arc::clone(works.entry(name.to_owned()).or_default()))
    }
}
