//! From a wish to a signed event.
//!
//! The caller says what ([`Draft`]) and where in the room's graph ([`Place`]); this module hashes,
//! signs and names it. It does not ask whether the event may be sent: check the result with
//! [`crate::auth::check`] before letting anybody see it.
//!
//! Source: <https://spec.matrix.org/v1.19/server-server-api/#signing-events>.

use std::collections::BTreeMap;

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId,
    OwnedUserId, ServerName, UserId,
    canonical_json::RedactingSerializer,
    events::TimelineEventType,
    signatures::{Ed25519KeyPair, JsonError, KeyPair, add_content_hash_to_event, reference_hash},
    state_res::auth_types_for_event,
};
use serde_json::value::RawValue;

use crate::{
    canonical::{self, NotCanonical},
    event::{
        AUTH_EVENTS_MAX, Damaged, IDENTIFIER_BYTES_MAX, PDU_BYTES_MAX, PREV_EVENTS_MAX, Pdu, kind, room_id_of_create,
    },
    versions::{self, Rules},
};

/// What somebody wants to say.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The type, e.g. `m.room.member`, exactly as asked for (see [`kind`]).
    pub kind: String,
    pub sender: OwnedUserId,
    /// Present exactly if it is a state event.
    pub state_key: Option<String>,
    /// A JSON object; it need not be canonical yet.
    pub content: Box<RawValue>,
    /// What a `m.room.redaction` redacts; put where the room version wants it.
    pub redacts: Option<OwnedEventId>,
}

impl Draft {
    /// A message or any other event that is not state.
    pub fn message(kind: impl Into<String>, sender: OwnedUserId, content: Box<RawValue>) -> Self {
        Self { kind: kind.into(), sender, state_key: None, content, redacts: None }
    }

    /// A state event.
    pub fn state(
        kind: impl Into<String>,
        state_key: impl Into<String>,
        sender: OwnedUserId,
        content: Box<RawValue>,
    ) -> Self {
        let kind = kind.into();
        Self { kind, sender, state_key: Some(state_key.into()), content, redacts: None }
    }
}

/// Where in the room's graph the event stands, and when it was made.
#[derive(Clone, Debug)]
pub struct Place {
    /// `None` only for the create event of a version that names rooms by that event's hash.
    pub room_id: Option<OwnedRoomId>,
    /// The heads it follows, at most [`PREV_EVENTS_MAX`].
    pub prev_events: Vec<OwnedEventId>,
    /// The events of the current state named by [`auth_types`], at most [`AUTH_EVENTS_MAX`].
    pub auth_events: Vec<OwnedEventId>,
    /// One more than the deepest previous event, capped at [`DEPTH_MAX`].
    pub depth: u64,
    pub origin_server_ts: MilliSecondsSinceUnixEpoch,
}

/// The largest depth canonical JSON can say.
pub const DEPTH_MAX: u64 = (1 << 53) - 1;

/// In whose name and with which key events are signed.
#[derive(Clone, Copy, Debug)]
pub struct Signer<'a> {
    pub server: &'a ServerName,
    pub key: &'a Ed25519KeyPair,
}

/// Why a draft cannot become an event.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("event of {bytes} bytes is larger than {PDU_BYTES_MAX}")]
    TooLarge { bytes: usize },
    #[error("`{field}` is longer than {IDENTIFIER_BYTES_MAX} bytes")]
    TooLong { field: &'static str },
    #[error("`{field}` has more than {most} entries")]
    TooMany { field: &'static str, most: usize },
    #[error("`{field}` contains U+0000")]
    NulByte { field: &'static str },
    #[error("content: {0}")]
    Content(#[from] NotCanonical),
    #[error("the room is not named")]
    RoomMissing,
    #[error("event cannot be signed: {0}")]
    Sign(#[from] JsonError),
    #[error(transparent)]
    Damaged(#[from] Damaged),
}

/// Hashes, signs and names an event.
pub fn build(draft: &Draft, place: &Place, signer: Signer<'_>, rules: &Rules) -> Result<Pdu, BuildError> {
    let mut object = unsigned_object(draft, place, rules)?;
    add_content_hash_to_event(&mut object).map_err(|error| unhashable(error, &object))?;
    finish(object, place.room_id.clone(), signer, rules)
}

/// The event without hash and signature, for a server that will complete it (`make_join`,
/// `make_knock`, `make_leave`).
pub fn template(draft: &Draft, place: &Place, rules: &Rules) -> Result<Box<RawValue>, BuildError> {
    let json = canonical::write(&unsigned_object(draft, place, rules)?);
    Ok(RawValue::from_string(json).expect("canonical JSON is JSON"))
}

/// Completes a template another server made for our user.
///
/// Only the graph (`prev_events`, `auth_events`, `depth`) is taken from `template`; what the event
/// says comes from `draft` and what room it is for from `room_id`, so that a resident server
/// cannot put words into our users' mouths.
pub fn complete_template(
    template: &RawValue,
    draft: &Draft,
    room_id: OwnedRoomId,
    origin_server_ts: MilliSecondsSinceUnixEpoch,
    signer: Signer<'_>,
    rules: &Rules,
) -> Result<Pdu, BuildError> {
    #[derive(serde::Deserialize)]
    struct Graph {
        #[serde(default)]
        depth: u64,
        prev_events: Vec<OwnedEventId>,
        auth_events: Vec<OwnedEventId>,
    }
    let graph: Graph = serde_json::from_str(template.get()).map_err(NotCanonical::from)?;
    let place = Place {
        room_id: Some(room_id),
        prev_events: graph.prev_events,
        auth_events: graph.auth_events,
        depth: graph.depth.min(DEPTH_MAX),
        origin_server_ts,
    };
    build(draft, &place, signer, rules)
}

/// Adds our signature to an event of another server: an invite of our user, or a join our user's
/// right to invite makes possible. The event's id stays.
pub fn countersign(event: &Pdu, signer: Signer<'_>, rules: &Rules) -> Result<Pdu, BuildError> {
    let object = canonical::parse(event.json.as_bytes())?;
    let rejected = event.rejected;
    Ok(finish(object, Some(event.room_id.clone()), signer, rules)?.with_rejected(rejected))
}

/// Which events of the current state vouch for an event, as (type, state key).
///
/// # Errors
/// In words, if the content does not say what its type must say (a membership, say).
///
/// Source: <https://spec.matrix.org/v1.19/server-server-api/#auth-events-selection>.
pub fn auth_types(
    kind: &str,
    sender: &UserId,
    state_key: Option<&str>,
    content: &RawValue,
    rules: &Rules,
) -> Result<Vec<(&'static str, String)>, String> {
    let kind = TimelineEventType::from(kind);
    let types = auth_types_for_event(&kind, sender, state_key, content, &rules.authorization)?;
    Ok(types.into_iter().map(|(kind, key)| (kind::of_auth_state(&kind), key)).collect())
}

/// The event as an object, checked against the limits that can be checked before signing.
fn unsigned_object(draft: &Draft, place: &Place, rules: &Rules) -> Result<CanonicalJsonObject, BuildError> {
    check_limits(draft, place)?;
    let mut content = canonical::parse(draft.content.get().as_bytes())?;
    let mut object = CanonicalJsonObject::new();
    let mut put = |key: &str, value: CanonicalJsonValue| object.insert(key.to_owned(), value);
    if let Some(redacts) = &draft.redacts {
        let redacts = CanonicalJsonValue::String(redacts.to_string());
        if rules.redaction.content_field_redacts {
            content.insert("redacts".to_owned(), redacts);
        } else {
            put("redacts", redacts);
        }
    }
    match &place.room_id {
        Some(room_id) => {
            put("room_id", room_id.as_str().into());
        }
        None if draft.kind == kind::CREATE && versions::room_id_is_create_hash(rules) => {}
        None => return Err(BuildError::RoomMissing),
    }
    if let Some(state_key) = &draft.state_key {
        put("state_key", state_key.as_str().into());
    }
    put("type", draft.kind.as_str().into());
    put("sender", draft.sender.as_str().into());
    put("content", content.into());
    put("origin_server_ts", place.origin_server_ts.get().into());
    put("depth", integer(place.depth.min(DEPTH_MAX)));
    put("prev_events", id_list(&place.prev_events));
    put("auth_events", id_list(&place.auth_events));
    Ok(object)
}

fn check_limits(draft: &Draft, place: &Place) -> Result<(), BuildError> {
    for (field, value) in [
        ("type", Some(draft.kind.as_str())),
        ("state_key", draft.state_key.as_deref()),
        ("sender", Some(draft.sender.as_str())),
    ] {
        let value = value.unwrap_or_default();
        if value.len() > IDENTIFIER_BYTES_MAX {
            return Err(BuildError::TooLong { field });
        }
        if value.contains('\0') {
            return Err(BuildError::NulByte { field });
        }
    }
    for (field, list, most) in
        [("prev_events", &place.prev_events, PREV_EVENTS_MAX), ("auth_events", &place.auth_events, AUTH_EVENTS_MAX)]
    {
        if list.len() > most {
            return Err(BuildError::TooMany { field, most });
        }
    }
    Ok(())
}

/// Signs an object that has its content hash, and names it.
fn finish(
    mut object: CanonicalJsonObject,
    room_id: Option<OwnedRoomId>,
    signer: Signer<'_>,
    rules: &Rules,
) -> Result<Pdu, BuildError> {
    // Signature and id are over the redacted event, so that both survive a redaction.
    let essential = RedactingSerializer::new()
        .rules(&rules.redaction)
        .custom_redacted_root_fields(&["signatures", "unsigned"])
        .serialize(&object)
        .map_err(JsonError::from)?;
    let signature = signer.key.sign(essential.as_bytes());
    let signatures =
        object.entry("signatures".to_owned()).or_insert_with(|| CanonicalJsonValue::Object(BTreeMap::new()));
    if let CanonicalJsonValue::Object(servers) = signatures {
        let keys =
            servers.entry(signer.server.to_string()).or_insert_with(|| CanonicalJsonValue::Object(BTreeMap::new()));
        if let CanonicalJsonValue::Object(keys) = keys {
            keys.insert(signature.id(), CanonicalJsonValue::String(signature.base64()));
        }
    }
    let hash = reference_hash(&object, rules).map_err(|error| unhashable(error, &object))?;
    let event_id = EventId::parse(format!("${hash}")).expect("a hash after a `$` is an event id");
    let json = canonical::write(&object);
    if json.len() > PDU_BYTES_MAX {
        return Err(BuildError::TooLarge { bytes: json.len() });
    }
    let room_id = room_id.or_else(|| room_id_of_create(&event_id)).ok_or(BuildError::RoomMissing)?;
    Ok(Pdu::from_stored(event_id, room_id, json, rules)?)
}

/// ruma hashes nothing too large to be an event.
fn unhashable(error: JsonError, object: &CanonicalJsonObject) -> BuildError {
    match error {
        JsonError::PduTooLarge => BuildError::TooLarge { bytes: canonical::write(object).len() },
        other => BuildError::Sign(other),
    }
}

fn id_list(ids: &[OwnedEventId]) -> CanonicalJsonValue {
    CanonicalJsonValue::Array(ids.iter().map(|id| id.as_str().into()).collect())
}

fn integer(value: u64) -> CanonicalJsonValue {
    let value = i64::try_from(value).ok().and_then(ruma::Int::new);
    CanonicalJsonValue::Integer(value.expect("capped at 2^53 - 1"))
}
