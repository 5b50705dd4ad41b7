//! Any bytes as a message of a voice client: the envelope, then the method and its parameters.
#![no_main]

use appservice_voice::signalling::json_rpc::{BATCH_LEN_MAX, Frame, parse};
use libfuzzer_sys::fuzz_target;
use voice_protocol::{
    events::{CallMember, VoiceConfig},
    json_rpc::{Request, Response},
    methods::Call,
    notifications::Notice,
};

fuzz_target!(|data: &[u8]| {
    // What a client, a voice service and a room's state say to each other, read from the same bytes.
    let _ = serde_json::from_slice::<Notice>(data);
    let _ = serde_json::from_slice::<VoiceConfig>(data);
    let _ = serde_json::from_slice::<CallMember>(data);
    match parse(data) {
        Err(answer) => answered(&answer),
        Ok(Frame::One(Err(answer))) => answered(&answer),
        Ok(Frame::One(Ok(request))) => called(&request),
        Ok(Frame::Batch(batch)) => {
            assert!((1..=BATCH_LEN_MAX).contains(&batch.len()));
            for incoming in &batch {
                match incoming {
                    Ok(request) => called(request),
                    Err(answer) => answered(answer),
                }
            }
        }
    }
});

fn called(request: &Request) {
    let written = serde_json::to_vec(request).expect("a request can be written");
    match parse(&written) {
        // Fractions among the parameters may come back a little off; nobody reads them.
        Ok(Frame::One(Ok(read))) => assert_eq!((&read.id, &read.method), (&request.id, &request.method)),
        other => panic!("{other:?}"),
    }
    match Call::read(&request.method, request.params.clone()) {
        Ok(_) => {}
        Err(error) => answered(&Response::error(request.id.clone(), error)),
    }
}

fn answered(answer: &Response) {
    let written = serde_json::to_vec(answer).expect("an answer can be written");
    let read: Response = serde_json::from_slice(&written).expect("an answer can be read");
    assert_eq!(&read, answer);
}
