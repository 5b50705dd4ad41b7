//! The names of the event types the rules of a room know.
//!
//! Types are plain strings throughout this crate. ruma's enums are not used to hold them, because
//! they take some unstable and stable names for one another (`m.call.member` for
//! `org.matrix.msc3401.call.member`, say): an event would leave under another name than it came,
//! and two state events could fall into one.

use ruma::events::StateEventType;

pub const CREATE: &str = "m.room.create";
pub const MEMBER: &str = "m.room.member";
pub const POWER_LEVELS: &str = "m.room.power_levels";
pub const JOIN_RULES: &str = "m.room.join_rules";
pub const THIRD_PARTY_INVITE: &str = "m.room.third_party_invite";
pub const REDACTION: &str = "m.room.redaction";
pub const ALIASES: &str = "m.room.aliases";
pub const HISTORY_VISIBILITY: &str = "m.room.history_visibility";
pub const GUEST_ACCESS: &str = "m.room.guest_access";
pub const SERVER_ACL: &str = "m.room.server_acl";
pub const NAME: &str = "m.room.name";
pub const TOPIC: &str = "m.room.topic";
pub const AVATAR: &str = "m.room.avatar";
pub const CANONICAL_ALIAS: &str = "m.room.canonical_alias";
pub const ENCRYPTION: &str = "m.room.encryption";
pub const ENCRYPTED: &str = "m.room.encrypted";
pub const MESSAGE: &str = "m.room.message";
pub const TOMBSTONE: &str = "m.room.tombstone";
pub const SPACE_CHILD: &str = "m.space.child";
pub const SPACE_PARENT: &str = "m.space.parent";

/// The types by which the authorisation rules decide about other events.
pub const AUTHORISING: [&str; 5] = [CREATE, MEMBER, POWER_LEVELS, JOIN_RULES, THIRD_PARTY_INVITE];

/// The name of a type the authorisation rules look up in a state; they know only these five.
pub(crate) fn of_auth_state(kind: &StateEventType) -> &'static str {
    match kind {
        StateEventType::RoomCreate => CREATE,
        StateEventType::RoomPowerLevels => POWER_LEVELS,
        StateEventType::RoomJoinRules => JOIN_RULES,
        StateEventType::RoomThirdPartyInvite => THIRD_PARTY_INVITE,
        StateEventType::RoomMember => MEMBER,
        other => {
            debug_assert!(false, "the rules ask for {other}");
            ""
        }
    }
}
