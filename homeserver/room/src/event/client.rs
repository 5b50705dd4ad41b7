//! An event as clients see it.
//!
//! Written straight into a buffer: the content is copied as it stands, never parsed again,
//! because every event of every sync passes here.
//!
//! Source: <https://spec.matrix.org/v1.19/client-server-api/#room-event-format>.

use std::{borrow::Cow, collections::BTreeMap};

use ruma::{EventId, TransactionId, UserId, events::room::member::MembershipState, serde::Raw};
use serde::{Serialize, de::IgnoredAny};
use serde_json::value::RawValue;

use super::{Pdu, kind};

/// What the server adds beside an event for one particular reader.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Unsigned<'a> {
    /// Milliseconds since the event was made.
    #[serde(rename = "age", skip_serializing_if = "Option::is_none")]
    pub age_ms: Option<i64>,
    /// The reader's own transaction id, only for the device that sent the event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transaction_id: Option<&'a TransactionId>,
    /// The content of the state event this one replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prev_content: Option<&'a RawValue>,
    /// Who sent the state event this one replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prev_sender: Option<&'a UserId>,
    /// The state event this one replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaces_state: Option<&'a EventId>,
    /// The redaction of this event, in the client's format.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redacted_because: Option<&'a RawValue>,
    /// The reader's membership when the event was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub membership: Option<&'a MembershipState>,
    /// Bundled aggregations, by relation type.
    #[serde(rename = "m.relations", skip_serializing_if = "Option::is_none")]
    pub relations: Option<&'a RawValue>,
    /// The stripped state of the room, on an invite.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invite_room_state: Option<&'a RawValue>,
    /// The stripped state of the room, on a knock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub knock_room_state: Option<&'a RawValue>,
}

impl Unsigned<'_> {
    fn is_empty(&self) -> bool {
        self.age_ms.is_none()
            && self.transaction_id.is_none()
            && self.prev_content.is_none()
            && self.prev_sender.is_none()
            && self.replaces_state.is_none()
            && self.redacted_because.is_none()
            && self.membership.is_none()
            && self.relations.is_none()
            && self.invite_room_state.is_none()
            && self.knock_room_state.is_none()
    }
}

/// Whether the event names its room. In a sync the room stands around it already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoomIdShown {
    Yes,
    No,
}

impl Pdu {
    /// Writes the event as clients see it, one JSON object, at the end of `out`.
    ///
    /// A redaction names its target both beside and inside the content, whichever of the two its
    /// room version prescribes, so that old and new clients find it.
    pub fn write_client(&self, unsigned: &Unsigned<'_>, room_id: RoomIdShown, out: &mut Vec<u8>) {
        out.reserve(self.content.get().len() + 384);
        out.extend_from_slice(b"{\"type\":");
        write_string(&self.kind, out);
        out.extend_from_slice(b",\"content\":");
        self.write_content(out);
        out.extend_from_slice(b",\"event_id\":");
        write_string(self.event_id.as_str(), out);
        out.extend_from_slice(b",\"sender\":");
        write_string(self.sender.as_str(), out);
        out.extend_from_slice(b",\"origin_server_ts\":");
        write_json(&self.origin_server_ts, out);
        if let Some(state_key) = &self.state_key {
            out.extend_from_slice(b",\"state_key\":");
            write_string(state_key, out);
        }
        if room_id == RoomIdShown::Yes {
            out.extend_from_slice(b",\"room_id\":");
            write_string(self.room_id.as_str(), out);
        }
        if let Some(redacts) = &self.redacts {
            out.extend_from_slice(b",\"redacts\":");
            write_string(redacts.as_str(), out);
        }
        if !unsigned.is_empty() {
            out.extend_from_slice(b",\"unsigned\":");
            write_json(unsigned, out);
        }
        out.push(b'}');
    }

    /// The event as clients see it, as one of ruma's event enums (`AnySyncTimelineEvent`, …).
    pub fn to_client<T>(&self, unsigned: &Unsigned<'_>, room_id: RoomIdShown) -> Raw<T> {
        let mut out = Vec::new();
        self.write_client(unsigned, room_id, &mut out);
        let json = String::from_utf8(out).expect("only strings were written");
        Raw::from_json(RawValue::from_string(json).expect("what was written is JSON"))
    }

    fn write_content(&self, out: &mut Vec<u8>) {
        let content = self.content.get();
        let missing = self.redacts.as_ref().filter(|_| self.kind == kind::REDACTION).filter(|_| !has_redacts(content));
        let (Some(redacts), Some(rest)) = (missing, content.trim_start().strip_prefix('{')) else {
            out.extend_from_slice(content.as_bytes());
            return;
        };
        out.extend_from_slice(b"{\"redacts\":");
        write_string(redacts.as_str(), out);
        if !rest.trim_start().starts_with('}') {
            out.push(b',');
        }
        out.extend_from_slice(rest.as_bytes());
    }
}

/// Whether the content has a key `redacts`, whatever stands there.
fn has_redacts(content: &str) -> bool {
    serde_json::from_str::<BTreeMap<Cow<'_, str>, IgnoredAny>>(content)
        .is_ok_and(|content| content.contains_key("redacts"))
}

fn write_string(value: &str, out: &mut Vec<u8>) {
    write_json(value, out);
}

fn write_json<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("a buffer takes everything and the value is JSON");
}
