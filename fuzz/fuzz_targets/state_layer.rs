//! Any bytes as a stored layer of room state, and layers on top of each other.
#![no_main]

use libfuzzer_sys::fuzz_target;
use room::state::{LAYERS_MAX, Layer, State, decode, encode, flatten, next_layer};

fuzz_target!(|data: &[u8]| {
    let (left, right) = data.split_at(data.len() / 2);
    let Ok(layer) = decode(data) else {
        if let (Ok(left), Ok(right)) = (decode(left), decode(right)) {
            one_after_the_other(&left, &right);
        }
        return;
    };
    assert_eq!(decode(&encode(&layer)).as_ref(), Ok(&layer), "a layer is read as it was written");
    one_after_the_other(&layer, &layer);
});

fn one_after_the_other(first: &Layer, second: &Layer) {
    let base = State::default().apply(first);
    let state = base.apply(second);
    assert_eq!(State::default().apply(&first.then(second)), state, "two changes are one");
    assert_eq!(base.apply(&base.diff(&state)), state, "a difference leads from one to the other");
    let parents = [Layer::base(&base)];
    let placement = next_layer(&parents, second);
    assert!(placement.kept < LAYERS_MAX);
    let layers: Vec<Layer> = parents.into_iter().take(placement.kept).chain([placement.layer]).collect();
    assert_eq!(flatten(&layers), state, "a snapshot is what was stored");
}
