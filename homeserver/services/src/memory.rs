//! What was read once and holds until somebody says that it is old.
//!
//! News that come between reading and remembering would be lost: the old answer would be kept after them, for ever. So whoever
//! reads takes the [`Moment`] first, and what was forgotten since keeps the answer out.

use std::{
    hash::Hash,
    sync::atomic::{AtomicU64, Ordering},
};

use quick_cache::{Equivalent, sync::Cache};

/// Answers by key, so many at most.
#[derive(Debug)]
pub(crate) struct Memory<K, V> {
    known: Cache<K, V>,
    /// Counts what was forgotten, whatever key it had.
    forgotten: AtomicU64,
}

/// When something was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment(u64);

impl<K: Hash + Eq + Clone, V: Clone> Memory<K, V> {
    /// With room for `entries_max`.
    pub(crate) fn new(entries_max: usize) -> Self {
        Self { known: Cache::new(entries_max), forgotten: AtomicU64::new(0) }
    }

    /// What is remembered of a key.
    pub(crate) fn get<Q: Hash + Equivalent<K> + ?Sized>(&self, key: &Q) -> Option<V> {
        self.known.get(key)
    }

    /// The moment before something is read.
    pub(crate) fn moment(&self) -> Moment {
        Moment(self.forgotten.load(Ordering::Acquire))
    }

    /// Remember what was read after `moment`, unless something was forgotten since.
    pub(crate) fn keep(&self, moment: Moment, key: K, value: V) {
        if self.moment() != moment {
            return;
        }
        self.known.insert(key.clone(), value);
        // The news may have come in between, and found nothing to forget.
        if self.moment() != moment {
            self.known.remove(&key);
        }
    }

    /// What is remembered of a key is old.
    pub(crate) fn forget(&self, key: &K) {
        self.forgotten.fetch_add(1, Ordering::AcqRel);
        self.known.remove(key);
    }

    /// What is remembered is old, where `is_old` says so.
    pub(crate) fn forget_where(&self, is_old: impl Fn(&K, &V) -> bool) {
        self.forgotten.fetch_add(1, Ordering::AcqRel);
        self.known.retain(|key, value| !is_old(key, value));
    }

    /// All that is remembered may be old.
    pub(crate) fn forget_all(&self) {
        self.forgotten.fetch_add(1, Ordering::AcqRel);
        self.known.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_before_the_news_is_not_remembered_after_them() {
        let memory = Memory::new(10);
        let before = memory.moment();

        memory.forget(&"alice");
        memory.keep(before, "alice", "old");
        assert_eq!(memory.get(&"alice"), None);

        memory.keep(memory.moment(), "alice", "new");
        assert_eq!(memory.get(&"alice"), Some("new"));
    }

    #[test]
    fn only_what_is_old_is_forgotten() {
        let memory = Memory::new(10);
        for (key, value) in [("alice", 1), ("bob", 2), ("carol", 3)] {
            memory.keep(memory.moment(), key, value);
        }

        memory.forget_where(|_, value| *value == 2);
        memory.forget(&"carol");
        assert_eq!([memory.get(&"alice"), memory.get(&"bob"), memory.get(&"carol")], [Some(1), None, None]);

        memory.forget_all();
        assert_eq!(memory.get(&"alice"), None);
    }
}
