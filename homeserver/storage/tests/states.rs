//! States stored as layers are, read back, the states they were: random histories with forks, on both databases.

mod databases;

use std::collections::BTreeMap;

use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, TestRunner},
};
use room::state::{EventNumber, LAYERS_MAX, Layer, StateKeyNumber, decode, encode, flatten, next_layer};
use storage::{
    Settings, Store,
    states::{self, NewState},
};

/// Histories told to each database.
const HISTORIES: u32 = 24;
/// How many in a hundred changes begin a fork.
const FORKS_PERCENT: u8 = 20;

/// One step of a history: which earlier state it follows, when it begins a fork, and what it changes.
#[derive(Debug, Clone)]
struct Step {
    fork: Option<prop::sample::Index>,
    added: Vec<(u64, u64)>,
    removed: Vec<u64>,
}

fn step() -> impl Strategy<Value = Step> {
    let keys = 0..60_u64;
    (any::<prop::sample::Index>(), 0..100_u8, vec((keys.clone(), any::<u64>()), 1..4), vec(keys, 0..2)).prop_map(
        |(earlier, percent, added, removed)| Step {
            fork: (percent < FORKS_PERCENT).then_some(earlier),
            added,
            removed,
        },
    )
}

/// A state as a plain map, with its number.
type Whole = (i64, BTreeMap<u64, u64>);

/// Store a history step by step, each layer placed upon what the database says is there; the states it should have.
async fn store(store: &Store, first_nid: i64, history: &[Step]) -> Vec<Whole> {
    let mut states: Vec<Whole> = vec![(0, BTreeMap::new())];
    for (nid, step) in (first_nid..).zip(history) {
        let (before_nid, mut whole) = match step.fork {
            Some(earlier) => states[earlier.index(states.len())].clone(),
            None => states.last().unwrap().clone(),
        };
        let change = Layer::new(
            step.added.iter().map(|(key, event)| (StateKeyNumber(*key), EventNumber(*event))),
            step.removed.iter().map(|key| StateKeyNumber(*key)),
        );
        for key in change.removed() {
            whole.remove(&key.0);
        }
        for (key, event) in change.added() {
            whole.insert(key.0, event.0);
        }
        let mut tx = store.begin().await.unwrap();
        let below = states::chain(&mut tx, before_nid).await.unwrap();
        let layers: Vec<Layer> = below.iter().map(|(_, layer)| decode(layer).unwrap()).collect();
        let placement = next_layer(&layers, &change);
        let row = NewState {
            nid,
            room_nid: 1,
            parent_nid: placement.kept.checked_sub(1).map(|top| below[top].0),
            layer: encode(&placement.layer),
        };
        states::put(&mut tx, &row).await.unwrap();
        tx.commit().await.unwrap();
        states.push((nid, whole));
    }
    states
}

/// What the layers of a chain add up to.
fn added_up(layers: &[Layer]) -> BTreeMap<u64, u64> {
    flatten(layers).iter().map(|(key, event)| (key.0, event.0)).collect()
}

fn tell_histories(url: String) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let database = runtime.block_on(Store::connect(&Settings::new(url))).unwrap();
    let next_nid = std::cell::Cell::new(1);
    let mut runner = TestRunner::new(Config { cases: HISTORIES, failure_persistence: None, ..Config::default() });
    runner
        .run(&vec(step(), 1..80), |history| {
            let first_nid = next_nid.get();
            next_nid.set(first_nid + i64::try_from(history.len()).unwrap());
            runtime.block_on(async {
                let states = store(&database, first_nid, &history).await;
                let nids: Vec<i64> = states.iter().map(|(nid, _)| *nid).collect();
                let mut tx = database.read().await.unwrap();
                let mut chains: BTreeMap<i64, Vec<Layer>> = BTreeMap::new();
                for (top, _, layer) in states::chains(&mut tx, &nids).await.unwrap() {
                    chains.entry(top).or_default().push(decode(&layer).unwrap());
                }
                for (nid, whole) in &states {
                    let together = chains.remove(nid).unwrap_or_default();
                    let alone = states::chain(&mut tx, *nid).await.unwrap();
                    let alone: Vec<Layer> = alone.iter().map(|(_, layer)| decode(layer).unwrap()).collect();
                    prop_assert!(alone.len() <= LAYERS_MAX, "{} layers", alone.len());
                    prop_assert_eq!(&added_up(&alone), whole);
                    prop_assert_eq!(&added_up(&together), whole);
                }
                Ok(())
            })
        })
        .unwrap();
}

#[test]
fn layers_read_back_from_sqlite_are_the_states_they_were() {
    let folder = tempfile::tempdir().unwrap();
    tell_histories(format!("sqlite://{}", folder.path().join("states.db").display()));
}

#[test]
fn layers_read_back_from_postgresql_are_the_states_they_were() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (_folder, [_, postgres]) = runtime.block_on(databases::addresses());
    tell_histories(postgres);
}
