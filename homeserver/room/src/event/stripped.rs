//! Stripped state: what somebody outside learns of a room they are invited to or knock at.
//!
//! Source: <https://spec.matrix.org/v1.19/client-server-api/#stripped-state>.

use ruma::serde::Raw;
use serde::Serialize;
use serde_json::value::RawValue;

use super::{Pdu, kind};

/// The state events (with an empty state key) shown to somebody outside, create event first.
pub const STRIPPED_TYPES: [&str; 7] =
    [kind::CREATE, kind::NAME, kind::AVATAR, kind::TOPIC, kind::JOIN_RULES, kind::CANONICAL_ALIAS, kind::ENCRYPTION];

/// One state event with nothing but type, state key, sender and content, as clients see it.
///
/// Between servers whole events are exchanged instead ([`Pdu::to_federation`]).
pub fn stripped<T>(event: &Pdu) -> Raw<T> {
    #[derive(Serialize)]
    struct Stripped<'a> {
        content: &'a RawValue,
        sender: &'a str,
        state_key: &'a str,
        r#type: &'a str,
    }
    let shown = Stripped {
        content: &event.content,
        sender: event.sender.as_str(),
        state_key: event.state_key.as_deref().unwrap_or_default(),
        r#type: &event.kind,
    };
    let json = serde_json::value::to_raw_value(&shown).expect("strings and JSON serialise");
    Raw::from_json(json)
}
