//! Snapshots of room state in memory: the whole map and the layers it is stored as. Snapshots never change.

use std::{collections::HashMap, sync::Arc};

use quick_cache::{Weighter, sync::Cache};
use room::state::{Layer, State, decode, encode, flatten, next_layer};
use storage::{
    numbers::Family,
    states::{self, NewState},
};

use crate::{Context, Error, Result};

/// Memory for snapshots, in bytes.
const CACHE_BYTES: u64 = 16 << 20;
/// Snapshots the cache expects to hold.
const CACHE_SNAPSHOTS: usize = 4_000;

/// The state of a room at some point.
#[derive(Debug)]
pub struct Snapshot {
    /// Its number; 0 for the empty state, which is stored nowhere.
    pub nid: i64,
    /// The whole map.
    pub state: State,
    /// The layers it is stored as, base first, with their numbers.
    nids: Vec<i64>,
    layers: Vec<Layer>,
}

impl Snapshot {
    /// The state of a room before its first event.
    #[must_use]
    pub fn empty() -> Arc<Self> {
        Arc::new(Self { nid: 0, state: State::default(), nids: Vec::new(), layers: Vec::new() })
    }
}

#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<i64, Arc<Snapshot>> for ByBytes {
    fn weight(&self, _: &i64, snapshot: &Arc<Snapshot>) -> u64 {
        let entries = snapshot.state.len() + snapshot.layers.iter().map(Layer::len).sum::<usize>();
        (entries * 16 + 200) as u64
    }
}

/// The snapshots of all rooms. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Snapshots {
    cx: Context,
    cache: Arc<Cache<i64, Arc<Snapshot>, ByBytes>>,
}

impl Snapshots {
    /// With an empty memory.
    #[must_use]
    pub fn new(cx: Context) -> Self {
        Self { cx, cache: Arc::new(Cache::with_weighter(CACHE_SNAPSHOTS, CACHE_BYTES, ByBytes)) }
    }

    /// The snapshot with this number.
    ///
    /// # Errors
    /// [`Error::Internal`] when it is not there or damaged; the database's.
    pub async fn by_nid(&self, nid: i64) -> Result<Arc<Snapshot>> {
        self.by_nids(&[nid]).await?.remove(&nid).ok_or_else(|| Error::internal(format!("state {nid} is missing")))
    }

    /// Several snapshots; one statement for those not in memory.
    ///
    /// # Errors
    /// [`Error::Internal`] when one is damaged; the database's.
    pub async fn by_nids(&self, nids: &[i64]) -> Result<HashMap<i64, Arc<Snapshot>>> {
        let mut found = HashMap::with_capacity(nids.len());
        let mut left = Vec::new();
        for nid in nids {
            if *nid == 0 {
                found.insert(0, Snapshot::empty());
            } else if let Some(snapshot) = self.cache.get(nid) {
                found.insert(*nid, snapshot);
            } else {
                left.push(*nid);
            }
        }
        if left.is_empty() {
            return Ok(found);
        }
        let rows = states::chains(&mut self.cx.store.read().await?, &left).await?;
        for chain in rows.chunk_by(|a, b| a.0 == b.0) {
            let nid = chain[0].0;
            let layers: Vec<Layer> =
                chain.iter().map(|row| decode(&row.2)).collect::<Result<_, _>>().map_err(Error::internal)?;
            let snapshot = Arc::new(Snapshot {
                nid,
                state: flatten(&layers),
                nids: chain.iter().map(|row| row.1).collect(),
                layers,
            });
            self.cache.insert(nid, Arc::clone(&snapshot));
            found.insert(nid, snapshot);
        }
        Ok(found)
    }

    /// The snapshot that follows `before` by `change`, and the row to store for it. When nothing changes it is `before` itself.
    ///
    /// # Errors
    /// The database's, when no number can be reserved.
    pub async fn next(
        &self,
        room_nid: i64,
        before: &Arc<Snapshot>,
        change: &Layer,
    ) -> Result<(Arc<Snapshot>, Option<NewState>)> {
        if change.is_empty() {
            return Ok((Arc::clone(before), None));
        }
        let nid = self.cx.numbers.next(Family::State).await?;
        let placement = next_layer(&before.layers, change);
        let row = NewState {
            nid,
            room_nid,
            parent_nid: placement.kept.checked_sub(1).map(|top| before.nids[top]),
            layer: encode(&placement.layer),
        };
        let mut nids = before.nids[..placement.kept].to_vec();
        nids.push(nid);
        let mut layers = before.layers[..placement.kept].to_vec();
        layers.push(placement.layer);
        let snapshot = Arc::new(Snapshot { nid, state: before.state.apply(change), nids, layers });
        self.cache.insert(nid, Arc::clone(&snapshot));
        Ok((snapshot, Some(row)))
    }

    /// Forget a snapshot that was computed and never stored.
    pub fn forget(&self, nid: i64) {
        self.cache.remove(&nid);
    }
}
