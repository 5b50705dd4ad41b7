//! Who has how much power in a room, and what it suffices for.
//!
//! A view of the create event and of `m.room.power_levels`, parsed once. It never fails: a value
//! that is missing or odd has its default. The strict rules are in [`super::check`].
//!
//! Source: <https://spec.matrix.org/v1.19/client-server-api/#mroompower_levels>.

use std::collections::{BTreeMap, BTreeSet};

use ruma::{Int, OwnedUserId, UserId, events::room::power_levels::UserPowerLevel, int};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::facts;
use crate::{event::Pdu, versions::Rules};

/// The power a creator has where nothing else is said, before version 12.
const CREATOR_POWER: i32 = 100;
/// The power needed to notify the whole room where nothing else is said.
const NOTIFY_POWER: i32 = 50;

/// An action with a power level of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerField {
    Ban,
    Invite,
    Kick,
    Redact,
    EventsDefault,
    StateDefault,
    UsersDefault,
}

/// The powers in a room, as they stand in one state of it.
#[derive(Clone, Debug)]
pub struct Powers {
    creators: BTreeSet<OwnedUserId>,
    creators_are_infinite: bool,
    /// Whether there is a `m.room.power_levels` event at all: without one creators have 100.
    stated: bool,
    users: BTreeMap<OwnedUserId, Int>,
    events: BTreeMap<String, Int>,
    notifications: BTreeMap<String, Int>,
    ban: Option<Int>,
    invite: Option<Int>,
    kick: Option<Int>,
    redact: Option<Int>,
    events_default: Option<Int>,
    state_default: Option<Int>,
    users_default: Option<Int>,
}

impl Powers {
    /// Reads the powers from a room's create event and, if it has one, its power levels.
    pub fn new(create: &Pdu, power_levels: Option<&Pdu>, rules: &Rules) -> Self {
        let said = power_levels.map(|event| Content::read(&event.content)).unwrap_or_default();
        let strict = rules.authorization.integer_power_levels;
        Self {
            creators: facts::creators(create, rules),
            creators_are_infinite: rules.authorization.explicitly_privilege_room_creators,
            stated: power_levels.is_some(),
            users: levels(said.users, strict)
                .filter_map(|(user, level)| Some((UserId::parse(user).ok()?, level)))
                .collect(),
            events: levels(said.events, strict).collect(),
            notifications: levels(said.notifications, strict).collect(),
            ban: level(said.ban, strict),
            invite: level(said.invite, strict),
            kick: level(said.kick, strict),
            redact: level(said.redact, strict),
            events_default: level(said.events_default, strict),
            state_default: level(said.state_default, strict),
            users_default: level(said.users_default, strict),
        }
    }

    /// The power of a user; infinite for the creators of a room of version 12 on.
    pub fn of(&self, user: &UserId) -> UserPowerLevel {
        if self.creators_are_infinite && self.creators.contains(user) {
            return UserPowerLevel::Infinite;
        }
        if !self.stated && self.creators.contains(user) {
            return UserPowerLevel::Int(CREATOR_POWER.into());
        }
        let level = self.users.get(user).copied();
        UserPowerLevel::Int(level.unwrap_or_else(|| self.needed(PowerField::UsersDefault)))
    }

    /// The power an action needs, or that users have by default.
    pub fn needed(&self, field: PowerField) -> Int {
        let (said, default) = match field {
            PowerField::Ban => (self.ban, int!(50)),
            PowerField::Invite => (self.invite, int!(0)),
            PowerField::Kick => (self.kick, int!(50)),
            PowerField::Redact => (self.redact, int!(50)),
            PowerField::EventsDefault => (self.events_default, int!(0)),
            PowerField::StateDefault => (self.state_default, int!(50)),
            PowerField::UsersDefault => (self.users_default, int!(0)),
        };
        said.unwrap_or(default)
    }

    /// The power needed to send an event that is not state.
    pub fn needed_to_send(&self, kind: &str) -> Int {
        let said = self.events.get(kind).copied();
        said.unwrap_or_else(|| self.needed(PowerField::EventsDefault))
    }

    /// The power needed to set state.
    pub fn needed_to_set(&self, kind: &str) -> Int {
        let said = self.events.get(kind).copied();
        said.unwrap_or_else(|| self.needed(PowerField::StateDefault))
    }

    /// The power needed to notify everybody (`room`) or another named group.
    pub fn needed_to_notify(&self, key: &str) -> Int {
        self.notifications.get(key).copied().unwrap_or(NOTIFY_POWER.into())
    }

    pub fn can_send(&self, user: &UserId, kind: &str) -> bool {
        self.of(user) >= self.needed_to_send(kind)
    }

    pub fn can_send_state(&self, user: &UserId, kind: &str) -> bool {
        self.of(user) >= self.needed_to_set(kind)
    }

    pub fn can_invite(&self, user: &UserId) -> bool {
        self.of(user) >= self.needed(PowerField::Invite)
    }

    /// Whether `user` may remove `target`: enough power, and more than they have.
    pub fn can_kick(&self, user: &UserId, target: &UserId) -> bool {
        self.of(user) >= self.needed(PowerField::Kick) && self.of(user) > self.of(target)
    }

    /// Whether `user` may ban `target`: enough power, and more than they have.
    pub fn can_ban(&self, user: &UserId, target: &UserId) -> bool {
        self.of(user) >= self.needed(PowerField::Ban) && self.of(user) > self.of(target)
    }

    /// Whether a redaction by `redacter` of an event of `sender` takes effect.
    ///
    /// From version 3 on the rules let every redaction into the room; whether it has an effect is
    /// asked here: with the power to redact, or for events of one's own server.
    pub fn can_redact(&self, redacter: &UserId, sender: &UserId) -> bool {
        self.of(redacter) >= self.needed(PowerField::Redact) || redacter.server_name() == sender.server_name()
    }

    pub fn can_notify(&self, user: &UserId, key: &str) -> bool {
        self.of(user) >= self.needed_to_notify(key)
    }

    /// Whether creators stand above all numbers (version 12 on).
    pub fn creators_are_infinite(&self) -> bool {
        self.creators_are_infinite
    }

    pub fn creators(&self) -> &BTreeSet<OwnedUserId> {
        &self.creators
    }

    /// The users given a level of their own, for finding somebody with enough power.
    pub fn users(&self) -> &BTreeMap<OwnedUserId, Int> {
        &self.users
    }
}

/// The fields of the content, each unread so that one odd field spoils no other.
#[derive(Default, Deserialize)]
struct Content<'a> {
    #[serde(borrow)]
    users: Option<&'a RawValue>,
    #[serde(borrow)]
    events: Option<&'a RawValue>,
    #[serde(borrow)]
    notifications: Option<&'a RawValue>,
    #[serde(borrow)]
    ban: Option<&'a RawValue>,
    #[serde(borrow)]
    invite: Option<&'a RawValue>,
    #[serde(borrow)]
    kick: Option<&'a RawValue>,
    #[serde(borrow)]
    redact: Option<&'a RawValue>,
    #[serde(borrow)]
    events_default: Option<&'a RawValue>,
    #[serde(borrow)]
    state_default: Option<&'a RawValue>,
    #[serde(borrow)]
    users_default: Option<&'a RawValue>,
}

impl<'a> Content<'a> {
    fn read(content: &'a RawValue) -> Self {
        serde_json::from_str(content.get()).unwrap_or_default()
    }
}

/// One level: an integer, and before version 10 also an integer in a string.
fn level(raw: Option<&RawValue>, strict: bool) -> Option<Int> {
    let raw = raw?.get();
    if let Ok(level) = serde_json::from_str::<Int>(raw) {
        return Some(level);
    }
    if strict {
        return None;
    }
    serde_json::from_str::<String>(raw).ok()?.trim().parse().ok()
}

/// The sensible entries of a map of levels.
fn levels(raw: Option<&RawValue>, strict: bool) -> impl Iterator<Item = (String, Int)> {
    let entries: BTreeMap<String, &RawValue> =
        raw.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default();
    entries.into_iter().filter_map(move |(key, raw)| Some((key, level(Some(raw), strict)?)))
}
