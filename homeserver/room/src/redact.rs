//! What is left of an event after a redaction, and whether a redaction takes effect.
//!
//! Source: <https://spec.matrix.org/v1.19/client-server-api/#redactions>.

use ruma::canonical_json::redact_in_place;

use crate::{
    auth::Powers,
    canonical,
    event::{Damaged, Pdu, kind},
    versions::Rules,
};

/// The event with nothing left but what its room version protects. Its id stays the same.
pub fn redacted(event: &Pdu, rules: &Rules) -> Result<Pdu, Damaged> {
    let damaged = |reason: String| Damaged::new(&event.event_id, reason);
    let mut object = canonical::parse(event.json.as_bytes()).map_err(|error| damaged(error.to_string()))?;
    redact_in_place(&mut object, &rules.redaction, None).map_err(|error| damaged(error.to_string()))?;
    let redacted = Pdu::from_stored(event.event_id.clone(), event.room_id.clone(), canonical::write(&object), rules)?;
    Ok(redacted.with_rejected(event.rejected))
}

/// Whether a redaction that is part of the room takes effect on its target.
///
/// `powers` are those of the state before the redaction. Check it whenever the second of the two
/// events arrives: a redaction may come before its target.
pub fn takes_effect(redaction: &Pdu, target: &Pdu, powers: &Powers) -> bool {
    redaction.kind == kind::REDACTION
        && !redaction.rejected
        && redaction.redacts.as_ref() == Some(&target.event_id)
        && redaction.room_id == target.room_id
        && powers.can_redact(&redaction.sender, &target.sender)
}
