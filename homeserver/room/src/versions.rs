//! Which room versions we know, and the rules of each as data.
//!
//! We create rooms of versions 6 to 12 and take part in rooms of versions 3 to 12. Versions 1 and
//! 2 name events by the server that made them, which no living room needs; we refuse them.
//!
//! Source: <https://spec.matrix.org/v1.19/rooms/>.

use ruma::{
    RoomVersionId,
    room_version_rules::{RoomIdFormatVersion, StateResolutionV2Rules},
};

/// The rules of one room version: event format, authorisation, redaction, state resolution.
pub type Rules = ruma::room_version_rules::RoomVersionRules;

/// The version of a room whose creator names none.
pub const DEFAULT: RoomVersionId = RoomVersionId::V12;

/// The versions in which we create rooms, oldest first.
pub const CREATABLE: [RoomVersionId; 7] = [
    RoomVersionId::V6,
    RoomVersionId::V7,
    RoomVersionId::V8,
    RoomVersionId::V9,
    RoomVersionId::V10,
    RoomVersionId::V11,
    RoomVersionId::V12,
];

/// The versions of the rooms we take part in, oldest first.
pub const UNDERSTOOD: [RoomVersionId; 10] = [
    RoomVersionId::V3,
    RoomVersionId::V4,
    RoomVersionId::V5,
    RoomVersionId::V6,
    RoomVersionId::V7,
    RoomVersionId::V8,
    RoomVersionId::V9,
    RoomVersionId::V10,
    RoomVersionId::V11,
    RoomVersionId::V12,
];

/// A room version we do not take part in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("room version {0} is not supported")]
pub struct Unsupported(pub RoomVersionId);

/// The rules of a version we understand.
pub fn rules(version: &RoomVersionId) -> Result<&'static Rules, Unsupported> {
    Ok(match version {
        RoomVersionId::V3 => &Rules::V3,
        RoomVersionId::V4 => &Rules::V4,
        RoomVersionId::V5 => &Rules::V5,
        RoomVersionId::V6 => &Rules::V6,
        RoomVersionId::V7 => &Rules::V7,
        RoomVersionId::V8 => &Rules::V8,
        RoomVersionId::V9 => &Rules::V9,
        RoomVersionId::V10 => &Rules::V10,
        RoomVersionId::V11 => &Rules::V11,
        RoomVersionId::V12 => &Rules::V12,
        other => return Err(Unsupported(other.clone())),
    })
}

/// Whether a user may ask for a new room of this version.
pub fn can_create(version: &RoomVersionId) -> bool {
    CREATABLE.contains(version)
}

/// Whether the room's id is the hash of its create event (version 12 on), in which case that
/// event carries no `room_id` and is never listed among the `auth_events`.
pub fn room_id_is_create_hash(rules: &Rules) -> bool {
    rules.room_id_format == RoomIdFormatVersion::V2
}

/// Whether `type` and `state_key` of other servers' events are measured in bytes. Rooms older than
/// version 11 have long held events measured in characters, which all must take alike.
pub fn counts_bytes(rules: &Rules) -> bool {
    // Nothing in the rules says so; this is what else version 11 began with.
    rules.redaction.content_field_redacts
}

/// The state resolution rules. Every version we understand uses the second algorithm.
pub fn state_resolution(rules: &Rules) -> &StateResolutionV2Rules {
    rules.state_res.v2_rules().unwrap_or(&StateResolutionV2Rules::V2_0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_we_understand_has_rules_and_the_second_state_resolution() {
        for version in UNDERSTOOD {
            let rules = rules(&version).unwrap();
            assert!(rules.state_res.v2_rules().is_some(), "{version}");
        }
    }

    #[test]
    fn every_version_we_create_is_understood() {
        assert!(CREATABLE.iter().all(|version| UNDERSTOOD.contains(version)));
        assert!(can_create(&DEFAULT));
        assert!(!can_create(&RoomVersionId::V5));
    }

    #[test]
    fn versions_one_and_two_and_unknown_names_are_refused() {
        for name in ["1", "2", "13", "org.example.odd"] {
            let version = RoomVersionId::try_from(name).unwrap();
            assert_eq!(rules(&version).unwrap_err(), Unsupported(version));
        }
    }

    #[test]
    fn bytes_are_counted_from_version_eleven_on() {
        let counting: Vec<_> = UNDERSTOOD.iter().filter(|v| counts_bytes(rules(v).unwrap())).collect();
        assert_eq!(counting, [&RoomVersionId::V11, &RoomVersionId::V12]);
    }

    #[test]
    fn only_version_twelve_names_rooms_by_their_create_event() {
        let hashed: Vec<_> = UNDERSTOOD.iter().filter(|v| room_id_is_create_hash(rules(v).unwrap())).collect();
        assert_eq!(hashed, [&RoomVersionId::V12]);
    }
}
