//! One event of a room, as servers exchange it (a PDU).
//!
//! A [`Pdu`] is immutable and always of a known shape: it was either built and signed here
//! ([`crate::build`]), read back from our own storage ([`Pdu::from_stored`]), or taken from
//! another server and verified ([`Pdu::from_remote`], then [`Unverified::verify`]). It is not the
//! event as clients see it; for that see [`Pdu::write_client`].
//!
//! Source: <https://spec.matrix.org/v1.19/server-server-api/#pdus>.

mod client;
pub mod kind;
mod remote;
mod stripped;

use std::fmt;

use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UInt, UserId,
    events::TimelineEventType, state_res::Event,
};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;

pub use self::{
    client::{RoomIdShown, Unsigned},
    remote::{BadFormat, BadSignature, Unverified},
    stripped::{STRIPPED_TYPES, stripped},
};
use crate::versions::Rules;

/// The largest event, in bytes of canonical JSON with signatures and without `unsigned`.
pub const PDU_BYTES_MAX: usize = 65_536;
/// The longest `sender`, `type`, `state_key`, `room_id` and event id, in bytes.
pub const IDENTIFIER_BYTES_MAX: usize = 255;
/// The most entries of `prev_events`.
pub const PREV_EVENTS_MAX: usize = 20;
/// The most entries of `auth_events`.
pub const AUTH_EVENTS_MAX: usize = 10;

/// One event of a room. Share it as `Arc<Pdu>`.
#[derive(Clone)]
pub struct Pdu {
    /// The hash of the event, as `$…`.
    pub event_id: OwnedEventId,
    /// The room, also for a create event of version 12 whose JSON does not name it.
    pub room_id: OwnedRoomId,
    pub sender: OwnedUserId,
    /// The type, e.g. `m.room.member`, exactly as sent (see [`kind`]).
    pub kind: String,
    /// Present exactly if this is a state event.
    pub state_key: Option<String>,
    /// The content, a JSON object.
    pub content: Box<RawValue>,
    /// When the sending server says it made the event.
    pub origin_server_ts: MilliSecondsSinceUnixEpoch,
    /// One more than the deepest of the previous events.
    pub depth: u64,
    pub prev_events: Vec<OwnedEventId>,
    pub auth_events: Vec<OwnedEventId>,
    /// What a `m.room.redaction` redacts, from where the room version keeps it.
    pub redacts: Option<OwnedEventId>,
    /// The whole event as servers exchange it: canonical JSON, signed, without `event_id` and
    /// without `unsigned`.
    pub json: Box<str>,
    /// Whether the authorisation rules refused it; kept, but never part of any state.
    pub rejected: bool,
    /// Whether the JSON names the room (not so for create events of version 12).
    names_room: bool,
    /// The type as ruma's rules want it; may bear another name than `kind`.
    ruma_kind: TimelineEventType,
}

/// Stored JSON that is no event: a damaged row.
#[derive(Debug, thiserror::Error)]
#[error("event {event_id} is damaged")]
pub struct Damaged {
    pub event_id: OwnedEventId,
    #[source]
    source: serde_json::Error,
}

impl Damaged {
    pub(crate) fn new(event_id: &EventId, reason: impl fmt::Display) -> Self {
        Self { event_id: event_id.to_owned(), source: serde::de::Error::custom(reason) }
    }
}

/// The fields we hold apart, borrowed from the JSON where possible.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(rename = "type")]
    kind: String,
    sender: OwnedUserId,
    state_key: Option<String>,
    #[serde(borrow)]
    content: &'a RawValue,
    origin_server_ts: UInt,
    depth: UInt,
    prev_events: Vec<OwnedEventId>,
    auth_events: Vec<OwnedEventId>,
    #[serde(borrow)]
    redacts: Option<&'a RawValue>,
    room_id: Option<IgnoredAny>,
}

impl Pdu {
    /// Reads an event back from our own storage: one pass, no hashing, nothing checked twice.
    ///
    /// `json` is what [`Pdu::json`] gave; `rejected` starts as `false` (see [`Pdu::rejected`]).
    pub fn from_stored(
        event_id: OwnedEventId,
        room_id: OwnedRoomId,
        json: impl Into<Box<str>>,
        rules: &Rules,
    ) -> Result<Self, Damaged> {
        let json = json.into();
        let fields = match serde_json::from_str::<Fields<'_>>(&json) {
            Ok(fields) => fields,
            Err(source) => return Err(Damaged { event_id, source }),
        };
        let redacts = (fields.kind == kind::REDACTION)
            .then(|| {
                if rules.redaction.content_field_redacts {
                    redacts_of_content(fields.content)
                } else {
                    fields.redacts.and_then(|id| serde_json::from_str(id.get()).ok())
                }
            })
            .flatten();
        Ok(Self {
            event_id,
            room_id,
            sender: fields.sender,
            ruma_kind: TimelineEventType::from(fields.kind.as_str()),
            kind: fields.kind,
            state_key: fields.state_key,
            content: fields.content.to_owned(),
            origin_server_ts: MilliSecondsSinceUnixEpoch(fields.origin_server_ts),
            depth: fields.depth.into(),
            prev_events: fields.prev_events,
            auth_events: fields.auth_events,
            redacts,
            names_room: fields.room_id.is_some(),
            json,
            rejected: false,
        })
    }

    /// Takes the JSON of an event from another server; see [`Unverified`] for what was checked.
    pub fn from_remote(json: &[u8], rules: &'static Rules) -> Result<Unverified, BadFormat> {
        Unverified::parse(json, rules)
    }

    /// The same event, marked as refused (or not) by the authorisation rules.
    #[must_use]
    pub fn with_rejected(mut self, rejected: bool) -> Self {
        self.rejected = rejected;
        self
    }

    /// Whether this is the state event of this type and state key.
    pub fn is_state(&self, kind: &str, state_key: &str) -> bool {
        self.kind == kind && self.state_key.as_deref() == Some(state_key)
    }

    /// Whether this is the create event of its room.
    pub fn is_create(&self) -> bool {
        self.is_state(kind::CREATE, "")
    }

    /// The time the sending server gave, in milliseconds since 1970.
    pub fn origin_server_ts_ms(&self) -> u64 {
        self.origin_server_ts.get().into()
    }

    /// The whole event as servers exchange it, for a federation reply.
    pub fn to_federation(&self) -> Box<RawValue> {
        RawValue::from_string(self.json.to_string()).expect("a Pdu holds well-formed JSON")
    }
}

/// The `redacts` inside a redaction's content, if it is an event id.
fn redacts_of_content(content: &RawValue) -> Option<OwnedEventId> {
    #[derive(Deserialize)]
    struct Content {
        redacts: OwnedEventId,
    }
    serde_json::from_str::<Content>(content.get()).ok().map(|content| content.redacts)
}

/// Shows who and what, never the content.
impl fmt::Debug for Pdu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pdu")
            .field("event_id", &self.event_id)
            .field("room_id", &self.room_id)
            .field("kind", &self.kind)
            .field("state_key", &self.state_key)
            .field("sender", &self.sender)
            .field("depth", &self.depth)
            .field("rejected", &self.rejected)
            .finish_non_exhaustive()
    }
}

impl AsRef<Pdu> for Pdu {
    fn as_ref(&self) -> &Pdu {
        self
    }
}

impl Event for Pdu {
    type Id = OwnedEventId;

    fn event_id(&self) -> &OwnedEventId {
        &self.event_id
    }

    fn room_id(&self) -> Option<&RoomId> {
        self.names_room.then_some(&*self.room_id)
    }

    fn sender(&self) -> &UserId {
        &self.sender
    }

    fn origin_server_ts(&self) -> MilliSecondsSinceUnixEpoch {
        self.origin_server_ts
    }

    fn event_type(&self) -> &TimelineEventType {
        &self.ruma_kind
    }

    fn content(&self) -> &RawValue {
        &self.content
    }

    fn state_key(&self) -> Option<&str> {
        self.state_key.as_deref()
    }

    fn prev_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        Box::new(self.prev_events.iter())
    }

    fn auth_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        Box::new(self.auth_events.iter())
    }

    fn redacts(&self) -> Option<&OwnedEventId> {
        self.redacts.as_ref()
    }

    fn rejected(&self) -> bool {
        self.rejected
    }
}

/// The create event of a room whose id is that event's hash (version 12 on).
pub fn create_event_id(room_id: &RoomId) -> Option<OwnedEventId> {
    EventId::parse(format!("${}", room_id.strip_sigil())).ok()
}

/// The id of a room from its create event (version 12 on).
pub fn room_id_of_create(event_id: &EventId) -> Option<OwnedRoomId> {
    RoomId::parse(format!("!{}", event_id.as_str().strip_prefix('$')?)).ok()
}
