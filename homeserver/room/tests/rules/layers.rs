//! States kept as layers are the states they were.

use proptest::{collection::vec, prelude::*};
use room::state::{EventNumber, LAYERS_MAX, Layer, State, StateKeyNumber, decode, encode, flatten, next_layer};

/// A change of a state: some keys set, some removed.
fn change() -> impl Strategy<Value = Layer> {
    let keys = 0..40_u64;
    (vec((keys.clone(), any::<u64>()), 0..4), vec(keys, 0..2)).prop_map(|(added, removed)| {
        Layer::new(
            added.into_iter().map(|(key, event)| (StateKeyNumber(key), EventNumber(event))),
            removed.into_iter().map(StateKeyNumber),
        )
    })
}

fn state() -> impl Strategy<Value = State> {
    vec((0..60_u64, 0..5_u64), 0..50)
        .prop_map(|entries| entries.into_iter().map(|(key, event)| (StateKeyNumber(key), EventNumber(event))).collect())
}

proptest! {
    #[test]
    fn layers_add_up_to_the_whole_state_after_any_history(history in vec(change(), 1..200)) {
        let mut whole = State::default();
        let mut layers: Vec<Layer> = Vec::new();
        for change in history {
            whole = whole.apply(&change);
            let placement = next_layer(&layers, &change);
            layers.truncate(placement.kept);
            layers.push(decode(&encode(&placement.layer)).unwrap());

            prop_assert!(layers.len() <= LAYERS_MAX);
            prop_assert_eq!(&flatten(&layers), &whole);
        }
    }

    #[test]
    fn a_difference_leads_from_one_state_to_the_other(old in state(), new in state()) {
        let difference = old.diff(&new);

        prop_assert_eq!(old.apply(&difference), new.clone());
        prop_assert!(new.diff(&new).is_empty());
        // Only what differs is in it.
        for (key, event) in difference.added() {
            prop_assert_ne!(old.get(*key), Some(*event));
        }
    }

    #[test]
    fn two_changes_in_one_do_what_they_do_apart(
        state in state(), first in change(), second in change(),
    ) {
        prop_assert_eq!(
            state.apply(&first.then(&second)),
            state.apply(&first).apply(&second)
        );
    }

    #[test]
    fn a_layer_reads_back_as_it_was_written(
        added in vec((any::<u64>(), any::<u64>()), 0..50), removed in vec(any::<u64>(), 0..20),
    ) {
        let layer = Layer::new(
            added.into_iter().map(|(key, event)| (StateKeyNumber(key), EventNumber(event))),
            removed.into_iter().map(StateKeyNumber),
        );
        prop_assert_eq!(decode(&encode(&layer)), Ok(layer));
    }

    #[test]
    fn no_bytes_make_reading_panic(bytes in vec(any::<u8>(), 0..200)) {
        if let Ok(layer) = decode(&bytes) {
            prop_assert_eq!(decode(&encode(&layer)), Ok(layer));
        }
    }

    #[test]
    fn a_layer_with_a_bit_flipped_or_cut_short_is_read_or_refused_but_never_panics(
        change in change(), at in any::<prop::sample::Index>(), bit in 0..8_u32,
    ) {
        let mut bytes = encode(&change);
        let at = at.index(bytes.len());
        prop_assert!(decode(&bytes[..at]).is_err());
        bytes[at] ^= 1 << bit;
        let _ = decode(&bytes);
    }
}

#[test]
fn a_count_that_promises_more_than_there_is_is_refused_before_it_is_believed() {
    let mut bytes = vec![0xff; 9];
    bytes.push(1);
    assert!(decode(&bytes).is_err());
}

/// A room of ten thousand members must not cost ten thousand whole states.
#[test]
fn ten_thousand_joins_are_stored_in_few_bytes() {
    let mut layers: Vec<Layer> = Vec::new();
    let mut bytes = 0;
    for member in 0..10_000 {
        let change = Layer::one(StateKeyNumber(member), EventNumber(3 * member));
        let placement = next_layer(&layers, &change);
        layers.truncate(placement.kept);
        bytes += encode(&placement.layer).len();
        layers.push(placement.layer);
    }

    assert_eq!(flatten(&layers).len(), 10_000);
    assert!(bytes < 3_000_000, "{bytes} bytes; whole states would take 100 million");
}
