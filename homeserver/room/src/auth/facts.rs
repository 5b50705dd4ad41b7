//! What single state events say, read with patience: what is missing or odd has its default.
//!
//! These are for showing and deciding in the server's own services. Whether an event is allowed
//! is decided by [`super::check`] alone, which is as strict as the specification.

use std::collections::BTreeSet;

use ruma::{
    OwnedEventId, OwnedRoomId, OwnedUserId, RoomVersionId, ServerName,
    events::room::{
        history_visibility::HistoryVisibility, member::MembershipState, server_acl::RoomServerAclEventContent,
    },
    room::{JoinRuleKind, RoomType},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use crate::{event::Pdu, versions::Rules};

/// One field of a content, if it is there and of the right kind.
///
/// Reads the content once without building it; for several fields of a hot event write a struct.
pub fn field<T: DeserializeOwned>(content: &RawValue, name: &str) -> Option<T> {
    struct Pick<'n, T>(&'n str, std::marker::PhantomData<T>);
    impl<'de, T: DeserializeOwned> serde::de::Visitor<'de> for Pick<'_, T> {
        type Value = Option<T>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut found = None;
            while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
                if key == self.0 {
                    let raw: &'de RawValue = map.next_value()?;
                    found = serde_json::from_str(raw.get()).ok();
                } else {
                    map.next_value::<serde::de::IgnoredAny>()?;
                }
            }
            Ok(found)
        }
    }
    let mut reader = serde_json::Deserializer::from_str(content.get());
    serde::Deserializer::deserialize_map(&mut reader, Pick(name, std::marker::PhantomData)).ok().flatten()
}

/// The membership a `m.room.member` event gives; leave if it says nothing sensible.
pub fn membership(event: &Pdu) -> MembershipState {
    field(&event.content, "membership").unwrap_or(MembershipState::Leave)
}

/// The membership of somebody given their member event, if there is one.
pub fn membership_of(event: Option<&Pdu>) -> MembershipState {
    event.map_or(MembershipState::Leave, membership)
}

/// Who may join; by invitation if nothing sensible is said.
pub fn join_rule(event: Option<&Pdu>) -> JoinRuleKind {
    event.and_then(|event| field(&event.content, "join_rule")).unwrap_or(JoinRuleKind::Invite)
}

/// The rooms whose members may join a restricted room.
pub fn allowed_rooms(join_rules: &Pdu) -> Vec<OwnedRoomId> {
    #[derive(Deserialize)]
    struct Condition {
        r#type: String,
        room_id: OwnedRoomId,
    }
    let conditions: Vec<Box<RawValue>> = field(&join_rules.content, "allow").unwrap_or_default();
    conditions
        .iter()
        .filter_map(|condition| serde_json::from_str::<Condition>(condition.get()).ok())
        .filter(|condition| condition.r#type == "m.room_membership")
        .map(|condition| condition.room_id)
        .collect()
}

/// Who may read the past; every member if nothing sensible is said.
pub fn history_visibility(event: Option<&Pdu>) -> HistoryVisibility {
    let said = event.and_then(|event| field(&event.content, "history_visibility"));
    match said {
        Some(
            known @ (HistoryVisibility::Invited
            | HistoryVisibility::Joined
            | HistoryVisibility::Shared
            | HistoryVisibility::WorldReadable),
        ) => known,
        _ => HistoryVisibility::Shared,
    }
}

/// Whether guests may join.
pub fn guests_allowed(event: Option<&Pdu>) -> bool {
    event.and_then(|event| field::<String>(&event.content, "guest_access")).is_some_and(|access| access == "can_join")
}

/// Whether the room's access list lets a server take part. Where there is no list, all may; a list
/// that cannot be read lets in nobody, as an empty one does.
pub fn server_is_allowed(server_acl: Option<&Pdu>, server: &ServerName) -> bool {
    let Some(event) = server_acl else { return true };
    let strings = |name: &str| -> Vec<String> {
        let entries: Vec<Box<RawValue>> = field(&event.content, name).unwrap_or_default();
        entries.iter().filter_map(|entry| serde_json::from_str(entry.get()).ok()).collect()
    };
    let ip_literals = field(&event.content, "allow_ip_literals").unwrap_or(true);
    RoomServerAclEventContent::new(ip_literals, strings("allow"), strings("deny")).is_allowed(server)
}

/// The creators of a room: the one, and from version 12 on also the additional ones.
pub fn creators(create: &Pdu, rules: &Rules) -> BTreeSet<OwnedUserId> {
    let mut creators = BTreeSet::new();
    if rules.authorization.use_room_create_sender {
        creators.insert(create.sender.clone());
    } else if let Some(creator) = field(&create.content, "creator") {
        creators.insert(creator);
    }
    if rules.authorization.additional_room_creators {
        let more: Vec<OwnedUserId> = field(&create.content, "additional_creators").unwrap_or_default();
        creators.extend(more);
    }
    creators
}

/// The version of the room; version 1 if the create event does not say.
pub fn room_version(create: &Pdu) -> RoomVersionId {
    field(&create.content, "room_version").unwrap_or(RoomVersionId::V1)
}

/// What the room is for, if the create event says (a space, say).
pub fn room_type(create: &Pdu) -> Option<RoomType> {
    field(&create.content, "type")
}

/// Whether other servers may take part.
pub fn federates(create: &Pdu) -> bool {
    field(&create.content, "m.federate").unwrap_or(true)
}

/// The room this one replaces.
pub fn predecessor(create: &Pdu) -> Option<OwnedRoomId> {
    #[derive(Deserialize)]
    struct Predecessor {
        room_id: OwnedRoomId,
    }
    field::<Predecessor>(&create.content, "predecessor").map(|predecessor| predecessor.room_id)
}

/// The room that replaces this one, from its tombstone.
pub fn replacement(tombstone: &Pdu) -> Option<OwnedRoomId> {
    field(&tombstone.content, "replacement_room")
}

/// The events pinned, at most as many as one event can hold.
pub fn pinned(event: &Pdu) -> Vec<OwnedEventId> {
    field(&event.content, "pinned").unwrap_or_default()
}
