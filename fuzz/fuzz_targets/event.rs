//! Any bytes as an event of any room version: canonical JSON, ids, redaction, and every question asked of an event.
//!
//! The first byte chooses the version, the rest is the event. What is an event is signed and asked everything.
#![no_main]

use fuzz::{examine, public_keys, rules, signed};
use libfuzzer_sys::fuzz_target;
use room::{Pdu, canonical};

fuzz_target!(|data: &[u8]| {
    let Some((&version, json)) = data.split_first() else { return };
    let rules = rules(version);
    let object = canonical::parse(json);
    if let Ok(object) = &object {
        let written = canonical::write(object);
        let read = canonical::parse(written.as_bytes()).expect("canonical JSON is canonical JSON");
        assert_eq!(canonical::write(&read), written);
    }
    let Ok(event) = Pdu::from_remote(json, rules) else { return };
    let object = object.expect("an event is canonical JSON");
    let pdu = signed(&event, object, rules);
    // Without our signature: nobody signed it, or what it bears is of other keys.
    let keys = public_keys(event.required_servers().keys());
    let _ = event.verify(&keys);
    if let Some(pdu) = pdu {
        examine(&pdu, rules);
    }
});
