//! Any bytes as the body of another server's transaction: read as the route reads it, its ephemeral units, and each of its
//! events by the rules of some room version, in the order a room's worker would take them.
#![no_main]

use std::sync::Arc;

use fuzz::{examine, rules, signed};
use libfuzzer_sys::fuzz_target;
use room::{
    Pdu, canonical, graph,
    receive::{Aim, Receive, Step},
};
use ruma::api::{IncomingRequestExt as _, federation::transactions::send_transaction_message::v1 as send};

fuzz_target!(|data: &[u8]| {
    let Some((&version, body)) = data.split_first() else { return };
    let request = http::Request::put("/_matrix/federation/v1/send/1").body(body).unwrap();
    let Ok(request) = send::Request::try_from_http_request(request, &["1"]) else { return };
    for unit in &request.edus {
        let _ = unit.deserialize();
    }
    let rules = rules(version);
    let mut events = Vec::new();
    for json in &request.pdus {
        let Ok(event) = Pdu::from_remote(json.get().as_bytes(), rules) else { continue };
        let object = canonical::parse(json.get().as_bytes()).expect("an event is canonical JSON");
        if let Some(event) = signed(&event, object, rules) {
            examine(&event, rules);
            events.push(Arc::new(event));
        }
    }
    let order = graph::order(&events);
    assert_eq!(order.len(), events.len(), "no event is lost");
    for at in order {
        let mut receive = Receive::new(events[at].clone(), rules, Aim::Live);
        // Of what is asked for, whatever the transaction brought is given.
        while !matches!(receive.step(), Step::Done(_)) {
            receive.supply(events.iter().cloned());
        }
    }
});
