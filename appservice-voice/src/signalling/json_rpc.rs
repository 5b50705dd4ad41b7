//! Reading JSON-RPC from the wire: bytes from anyone in, requests or ready refusals out. Pure.

use serde_json::Value;
use voice_protocol::{
    error,
    json_rpc::{Error, Id, Request, Response},
};

/// Longest message, bytes. A session description with all slots is about 30 KB.
pub const MESSAGE_BYTES_MAX: usize = 128 * 1024;
/// Most requests in one batch.
pub const BATCH_LEN_MAX: usize = 32;

/// A request, or the answer to something that was none.
pub type Incoming = Result<Request, Response>;

/// One message.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    One(Incoming),
    /// Answered by an array of the answers, in the same order; by nothing if there are none.
    Batch(Vec<Incoming>),
}

/// Read one message. Nesting is bounded by the JSON reader (128 levels).
///
/// # Errors
/// The response to send when the message as a whole is refused.
pub fn parse(message: &[u8]) -> Result<Frame, Response> {
    let refuse = |code, text: &str| Err(Response::error(None, Error::new(code, text)));
    if message.len() > MESSAGE_BYTES_MAX {
        return refuse(error::INVALID_REQUEST, "the message is too long");
    }
    let Ok(value) = serde_json::from_slice::<Value>(message) else {
        return refuse(error::PARSE_ERROR, "not JSON");
    };
    match value {
        Value::Array(requests) if requests.is_empty() => refuse(error::INVALID_REQUEST, "an empty batch"),
        Value::Array(requests) if requests.len() > BATCH_LEN_MAX => {
            refuse(error::INVALID_REQUEST, "the batch is too long")
        }
        Value::Array(requests) => Ok(Frame::Batch(requests.into_iter().map(request).collect())),
        value => Ok(Frame::One(request(value))),
    }
}

fn request(value: Value) -> Incoming {
    let id = value.get("id").and_then(|id| serde_json::from_value::<Id>(id.clone()).ok());
    let shape_is_right = match value.get("params") {
        None | Some(Value::Object(_)) => true,
        Some(_) => false,
    };
    // An id that cannot be read must not turn a request into a notification.
    let id_is_right = value.get("id").is_none() || id.is_some();
    let refusal = |id| Response::error(id, Error::new(error::INVALID_REQUEST, "not a JSON-RPC 2.0 request"));
    if !shape_is_right || !id_is_right {
        return Err(refusal(id));
    }
    serde_json::from_value(value).map_err(|_| refusal(id))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;
    use voice_protocol::json_rpc::Outcome;

    use super::*;

    fn code_of(answer: &Response) -> i64 {
        match &answer.outcome {
            Outcome::Error(error) => error.code,
            Outcome::Result(_) => 0,
        }
    }

    fn refusal_of(message: &str) -> (i64, Option<Id>) {
        match parse(message.as_bytes()) {
            Err(answer) | Ok(Frame::One(Err(answer))) => (code_of(&answer), answer.id),
            Ok(other) => panic!("{message} was understood: {other:?}"),
        }
    }

    #[test]
    fn a_request_and_a_batch_are_read() {
        let one = parse(br#"{"jsonrpc":"2.0","id":1,"method":"voice.ping"}"#).unwrap();
        let batch = parse(br#"[{"jsonrpc":"2.0","id":"a","method":"x","params":{}}, 7]"#).unwrap();

        assert!(matches!(one, Frame::One(Ok(Request { id: Some(Id::Number(1)), .. }))));
        let Frame::Batch(batch) = batch else { panic!("not a batch") };
        assert!(batch[0].is_ok());
        assert_eq!(batch[1].as_ref().map_err(code_of), Err(error::INVALID_REQUEST));
    }

    #[test]
    fn what_is_no_request_gets_the_standard_answer() {
        assert_eq!(refusal_of("{"), (error::PARSE_ERROR, None));
        assert_eq!(refusal_of("[]"), (error::INVALID_REQUEST, None));
        assert_eq!(refusal_of("1"), (error::INVALID_REQUEST, None));
        assert_eq!(
            refusal_of(r#"{"jsonrpc":"1.0","id":4,"method":"x"}"#),
            (error::INVALID_REQUEST, Some(Id::Number(4)))
        );
        assert_eq!(refusal_of(r#"{"jsonrpc":"2.0","id":{},"method":"x"}"#), (error::INVALID_REQUEST, None));
        assert_eq!(refusal_of(r#"{"jsonrpc":"2.0","id":4,"method":"x","params":[1]}"#).0, error::INVALID_REQUEST);
        assert_eq!(refusal_of(&"[".repeat(MESSAGE_BYTES_MAX)).0, error::PARSE_ERROR);
        assert_eq!(refusal_of(&format!("[{}]", vec!["1"; BATCH_LEN_MAX + 1].join(","))).0, error::INVALID_REQUEST);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(message in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse(&message);
        }

        #[test]
        fn no_json_of_nearly_the_right_shape_makes_it_panic(
            version in prop_oneof![Just(json!("2.0")), Just(json!(2.0)), Just(json!(null))],
            id in prop_oneof![Just(json!(1)), Just(json!(1.5)), Just(json!("x")), Just(json!([])), Just(json!(null))],
            method in prop_oneof![Just(json!("voice.join")), Just(json!(3)), Just(json!(null))],
            params in prop_oneof![Just(json!({})), Just(json!([])), Just(json!(null)), Just(json!({"room_id": 4}))],
            batch in any::<bool>(),
        ) {
            let request = json!({"jsonrpc": version, "id": id, "method": method, "params": params});
            let message = if batch { json!([request, request]) } else { request };
            let frame = parse(message.to_string().as_bytes());
            prop_assert!(frame.is_ok());
        }
    }
}
