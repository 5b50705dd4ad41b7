//! An event another server gave us, before anybody vouched for it.
//!
//! Covers steps 1 to 3 of the checks on receipt: the format, the signatures, the content hash.
//! Whether the event may be sent at all is for [`crate::auth`] and [`crate::receive`].
//!
//! Invariant: nothing from the network becomes a [`Pdu`] except through [`Unverified::verify`].

use std::{collections::BTreeMap, fmt};

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, EventId, OwnedEventId, OwnedRoomId, OwnedServerName, RoomId, UserId,
    canonical_json::redact,
    signatures::{
        PublicKeyMap, VerificationError, Verified, reference_hash, required_server_signatures_to_verify_event,
        verify_event,
    },
};

use super::{
    AUTH_EVENTS_MAX, IDENTIFIER_BYTES_MAX, PDU_BYTES_MAX, PREV_EVENTS_MAX, Pdu, create_event_id, room_id_of_create,
};
use crate::{
    canonical::{self, NotCanonical},
    versions::{self, Rules},
};

/// Why bytes from another server are not an event of this room version. The event is dropped.
#[derive(Debug, thiserror::Error)]
pub enum BadFormat {
    #[error(transparent)]
    NotCanonical(#[from] NotCanonical),
    #[error("event of {bytes} bytes is larger than {PDU_BYTES_MAX}")]
    TooLarge { bytes: usize },
    #[error("`{field}` is missing or not {expected}")]
    Field { field: &'static str, expected: &'static str },
    #[error("`{field}` is longer than {IDENTIFIER_BYTES_MAX} bytes (characters, before room version 11)")]
    TooLong { field: &'static str },
    #[error("`{field}` has more than {most} entries")]
    TooMany { field: &'static str, most: usize },
    #[error("`auth_events` names the create event, which goes without saying")]
    CreateAmongAuthEvents,
    #[error("the event cannot be hashed: {0}")]
    Hash(#[source] ruma::signatures::JsonError),
}

/// Why the signatures of an event do not hold. The event is dropped.
#[derive(Debug, thiserror::Error)]
#[error("event {event_id} is not signed as it must be: {source}")]
pub struct BadSignature {
    pub event_id: OwnedEventId,
    #[source]
    pub source: VerificationError,
}

/// An event of good format whose signatures nobody has checked yet.
pub struct Unverified {
    event_id: OwnedEventId,
    room_id: OwnedRoomId,
    object: CanonicalJsonObject,
    required: BTreeMap<OwnedServerName, Vec<String>>,
    rules: &'static Rules,
}

impl Unverified {
    /// Checks size and fields and computes the event's id. `unsigned` and `event_id` are dropped:
    /// the first is the sending server's private remark, the second is ours to compute.
    pub(super) fn parse(json: &[u8], rules: &'static Rules) -> Result<Self, BadFormat> {
        // Leaves room for white space and for an `unsigned`, which do not count.
        const WIRE_BYTES_MAX: usize = 4 * PDU_BYTES_MAX;
        if json.len() > WIRE_BYTES_MAX {
            return Err(BadFormat::TooLarge { bytes: json.len() });
        }
        let mut object = canonical::parse(json)?;
        object.remove("unsigned");
        object.remove("event_id");
        let bytes = canonical::write(&object).len();
        if bytes > PDU_BYTES_MAX {
            return Err(BadFormat::TooLarge { bytes });
        }
        let named_room = check_fields(&object, rules)?;
        let hash = reference_hash(&object, rules).map_err(BadFormat::Hash)?;
        let event_id = EventId::parse(format!("${hash}"))
            .map_err(|_| BadFormat::Field { field: "event_id", expected: "a hash" })?;
        let room_id = named_room
            .or_else(|| room_id_of_create(&event_id))
            .ok_or(BadFormat::Field { field: "room_id", expected: "a room id" })?;
        let required = required_signatures(&object, rules)?;
        Ok(Self { event_id, room_id, object, required, rules })
    }

    pub fn event_id(&self) -> &EventId {
        &self.event_id
    }

    pub fn room_id(&self) -> &RoomId {
        &self.room_id
    }

    /// The rules it was read by.
    pub fn rules(&self) -> &'static Rules {
        self.rules
    }

    /// The user who is said to have sent it.
    pub fn sender(&self) -> &UserId {
        match self.object.get("sender") {
            Some(CanonicalJsonValue::String(sender)) => {
                <&UserId>::try_from(sender.as_str()).expect("checked when the event was parsed")
            }
            _ => unreachable!("checked when the event was parsed"),
        }
    }

    /// When the event is said to have been made, in milliseconds since 1970: the time at which
    /// the signing keys must have been valid (from room version 5 on).
    pub fn origin_server_ts_ms(&self) -> u64 {
        integer(&self.object, "origin_server_ts").expect("checked when the event was parsed")
    }

    /// The servers that must have signed it, each with the key ids it signed with. An empty list
    /// of keys means that the signature is missing and [`Self::verify`] will fail.
    pub fn required_servers(&self) -> &BTreeMap<OwnedServerName, Vec<String>> {
        &self.required
    }

    /// The events it names as its previous ones, for asking after missing ones early.
    pub fn prev_events(&self) -> Vec<OwnedEventId> {
        event_ids(&self.object, "prev_events", PREV_EVENTS_MAX).unwrap_or_default()
    }

    /// Checks the signatures with the keys given, then the content hash. An event whose content
    /// was changed on the way becomes its redacted self, as the specification asks.
    pub fn verify(self, keys: &PublicKeyMap) -> Result<Pdu, BadSignature> {
        let failed = |event_id: &OwnedEventId, source| BadSignature { event_id: event_id.clone(), source };
        let object = match verify_event(keys, &self.object, self.rules) {
            Ok(Verified::All) => self.object,
            Ok(Verified::Signatures) => redact(self.object, &self.rules.redaction, None)
                .map_err(|source| failed(&self.event_id, source.into()))?,
            Err(source) => return Err(failed(&self.event_id, source)),
        };
        let json = canonical::write(&object);
        Pdu::from_stored(self.event_id.clone(), self.room_id, json, self.rules)
            .map_err(|damaged| failed(&self.event_id, damaged.source.into()))
    }
}

/// Shows who and what, never the content.
impl fmt::Debug for Unverified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unverified")
            .field("event_id", &self.event_id)
            .field("room_id", &self.room_id)
            .field("required", &self.required)
            .finish_non_exhaustive()
    }
}

/// Checks presence, kind and length of every field; gives the room it names, if it names one.
fn check_fields(object: &CanonicalJsonObject, rules: &Rules) -> Result<Option<OwnedRoomId>, BadFormat> {
    let length: fn(&str) -> usize = if versions::counts_bytes(rules) { str::len } else { |text| text.chars().count() };
    let kind = string_of(object, "type", length)?;
    no_nul("type", kind)?;
    let sender = string(object, "sender")?;
    UserId::parse(sender).map_err(|_| BadFormat::Field { field: "sender", expected: "a user id" })?;
    if object.contains_key("state_key") {
        no_nul("state_key", string_of(object, "state_key", length)?)?;
    }
    for field in ["content", "hashes", "signatures"] {
        if !matches!(object.get(field), Some(CanonicalJsonValue::Object(_))) {
            return Err(BadFormat::Field { field, expected: "an object" });
        }
    }
    for field in ["origin_server_ts", "depth"] {
        integer(object, field)?;
    }
    event_ids(object, "prev_events", PREV_EVENTS_MAX)?;
    let auth_events = event_ids(object, "auth_events", AUTH_EVENTS_MAX)?;
    let room_is_hash = versions::room_id_is_create_hash(rules);
    let nameless = kind == "m.room.create" && room_is_hash;
    if nameless && !object.contains_key("room_id") {
        return Ok(None);
    }
    let room_id = RoomId::parse(string(object, "room_id")?)
        .map_err(|_| BadFormat::Field { field: "room_id", expected: "a room id" })?;
    if room_is_hash && create_event_id(&room_id).is_some_and(|id| auth_events.contains(&id)) {
        return Err(BadFormat::CreateAmongAuthEvents);
    }
    Ok(Some(room_id))
}

/// The servers whose signature the event needs, with the keys it was signed with.
fn required_signatures(
    object: &CanonicalJsonObject,
    rules: &Rules,
) -> Result<BTreeMap<OwnedServerName, Vec<String>>, BadFormat> {
    let servers = required_server_signatures_to_verify_event(object, &rules.signatures)
        .map_err(|_| BadFormat::Field { field: "content", expected: "a membership in order" })?;
    let signatures = object.get("signatures").and_then(CanonicalJsonValue::as_object);
    let keys_of = |server: &OwnedServerName| {
        signatures
            .and_then(|all| all.get(server.as_str()))
            .and_then(CanonicalJsonValue::as_object)
            .map(|keys| keys.keys().cloned().collect())
            .unwrap_or_default()
    };
    Ok(servers.into_iter().map(|server| (server.clone(), keys_of(&server))).collect())
}

fn string<'a>(object: &'a CanonicalJsonObject, field: &'static str) -> Result<&'a str, BadFormat> {
    string_of(object, field, str::len)
}

fn string_of<'a>(
    object: &'a CanonicalJsonObject,
    field: &'static str,
    length: fn(&str) -> usize,
) -> Result<&'a str, BadFormat> {
    match object.get(field) {
        Some(CanonicalJsonValue::String(value)) if length(value) > IDENTIFIER_BYTES_MAX => {
            Err(BadFormat::TooLong { field })
        }
        Some(CanonicalJsonValue::String(value)) => Ok(value),
        _ => Err(BadFormat::Field { field, expected: "a string" }),
    }
}

/// Types and state keys become columns of text, in which PostgreSQL cannot hold U+0000.
fn no_nul(field: &'static str, value: &str) -> Result<(), BadFormat> {
    if value.contains('\0') {
        return Err(BadFormat::Field { field, expected: "free of U+0000" });
    }
    Ok(())
}

fn integer(object: &CanonicalJsonObject, field: &'static str) -> Result<u64, BadFormat> {
    object
        .get(field)
        .and_then(CanonicalJsonValue::as_integer)
        .and_then(|value| u64::try_from(i64::from(value)).ok())
        .ok_or(BadFormat::Field { field, expected: "an integer of zero or more" })
}

fn event_ids(object: &CanonicalJsonObject, field: &'static str, most: usize) -> Result<Vec<OwnedEventId>, BadFormat> {
    let bad = || BadFormat::Field { field, expected: "a list of event ids" };
    let list = object.get(field).and_then(CanonicalJsonValue::as_array).ok_or_else(bad)?;
    if list.len() > most {
        return Err(BadFormat::TooMany { field, most });
    }
    list.iter().map(|id| id.as_str().and_then(|id| EventId::parse(id).ok()).ok_or_else(bad)).collect()
}
