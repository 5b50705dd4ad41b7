//! Any bytes as a datagram on the media port. Where the STUN library understands a request too, it must say the same.
#![no_main]

use appservice_voice::sfu::demux::{Datagram, classify};
use libfuzzer_sys::fuzz_target;
use str0m::ice::StunMessage;

fuzz_target!(|data: &[u8]| {
    let Datagram::StunRequest { ufrag } = classify(data) else { return };
    assert!(!ufrag.is_empty() && !ufrag.contains(':'));
    let Ok(message) = StunMessage::parse(data) else { return };
    assert!(message.is_binding_request());
    if let Some((ours, _)) = message.split_username() {
        assert_eq!(ufrag, ours, "a datagram goes to the one whose credentials it is checked against");
    }
});
