//! What a room's state says about voice: who may come in, speak, mute and remove. Pure.
//!
//! The state comes from the homeserver, so it is already authorised; here it is only read. Whatever cannot be read
//! counts as absent, which for rights means the Matrix defaults.
//!
//! Source: Client-Server API, `m.room.power_levels` and `m.room.server_acl`; room version 12 for creators.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;
use serde_json::Value;
use voice_protocol::events::{self, VoiceConfig, rights};

/// Types of the state events that decide anything here. The registration asks for exactly these.
pub const EVENT_TYPES: [&str; 6] =
    ["m.room.create", "m.room.member", "m.room.power_levels", "m.room.server_acl", events::CONFIG, events::CALL_MEMBER];

/// Joined members kept of one room; a voice room with more is read, but the surplus cannot join a call.
const MEMBERS_MAX: usize = 200_000;
/// Call memberships kept of one room.
const CALL_MEMBERS_MAX: usize = 1_000;

/// A state event, reduced to what is read here.
#[derive(Clone, Debug, Deserialize)]
pub struct StateEvent {
    #[serde(rename = "type")]
    pub kind: String,
    pub state_key: String,
    #[serde(default)]
    pub sender: String,
    #[serde(default)]
    pub origin_server_ts: u64,
    #[serde(default)]
    pub content: Value,
}

/// Why someone may not come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barred {
    NotAVoiceRoom,
    NotJoined,
    /// The room's server ACL excludes the user's server.
    ServerExcluded,
    /// Power level below `org.voicechat.voice.listen`.
    MayNotListen,
}

/// What someone who is in may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    pub speak: bool,
    pub mute_others: bool,
    pub kick: bool,
}

/// The relevant part of a room's current state.
#[derive(Clone, Debug, Default)]
pub struct Access {
    room_type: Option<String>,
    /// Users whose power has no bound: creators in room versions that say so.
    creators: Vec<String>,
    /// Fallback power when there is no power levels event: the creator has 100.
    first_creator: Option<String>,
    joined: HashSet<String>,
    power: Option<PowerLevels>,
    acl: Option<ServerAcl>,
    config: VoiceConfig,
    /// Event content by state key, for devices that are in the call.
    calling: HashMap<String, CallMembership>,
}

/// A device's call membership as it stands in the room.
#[derive(Clone, Debug)]
pub struct CallMembership {
    pub sender: String,
    /// Milliseconds since 1970 after which it counts no more.
    pub expires_at_ms: u64,
    /// It names our kind of focus, so it may well be one that the service wrote and is about to clear.
    pub names_our_focus: bool,
}

impl Access {
    /// Read a whole room state.
    pub fn from_state<'a>(state: impl IntoIterator<Item = &'a StateEvent>) -> Self {
        let mut access = Self::default();
        for event in state {
            access.apply(event);
        }
        access
    }

    /// Take in one newer state event. Returns whether anything that matters to voice may have changed.
    pub fn apply(&mut self, event: &StateEvent) -> bool {
        let content = &event.content;
        match (event.kind.as_str(), event.state_key.as_str()) {
            ("m.room.create", "") => self.apply_create(event),
            ("m.room.member", user_id) => return self.apply_member(user_id, content),
            ("m.room.power_levels", "") => self.power = Some(PowerLevels::read(content)),
            ("m.room.server_acl", "") => self.acl = Some(ServerAcl::read(content)),
            (events::CONFIG, "") => self.config = VoiceConfig::from_content(content),
            (events::CALL_MEMBER, state_key) => return self.apply_call_member(state_key, event),
            _ => return false,
        }
        true
    }

    fn apply_create(&mut self, event: &StateEvent) {
        let content = &event.content;
        self.room_type = content["type"].as_str().map(ToOwned::to_owned);
        let creator = content["creator"].as_str().filter(|_| event.sender.is_empty()).unwrap_or(&event.sender);
        self.first_creator = Some(creator.to_owned());
        if has_privileged_creators(content["room_version"].as_str().unwrap_or("1")) {
            let additional = content["additional_creators"].as_array().into_iter().flatten();
            self.creators = std::iter::once(creator.to_owned())
                .chain(additional.filter_map(|user_id| user_id.as_str().map(ToOwned::to_owned)))
                .collect();
        }
    }

    fn apply_member(&mut self, user_id: &str, content: &Value) -> bool {
        if content["membership"] == "join" {
            if self.joined.len() < MEMBERS_MAX {
                return self.joined.insert(user_id.to_owned());
            }
            return false;
        }
        self.joined.remove(user_id)
    }

    fn apply_call_member(&mut self, state_key: &str, event: &StateEvent) -> bool {
        if !events::is_in_call(&event.content) {
            return self.calling.remove(state_key).is_some();
        }
        if self.calling.len() < CALL_MEMBERS_MAX || self.calling.contains_key(state_key) {
            let created_ms = event.content["created_ts"].as_u64().unwrap_or(event.origin_server_ts);
            let expires_ms = event.content["expires"].as_u64().unwrap_or(events::CALL_MEMBER_EXPIRES_MS);
            let membership = CallMembership {
                sender: event.sender.clone(),
                expires_at_ms: created_ms.saturating_add(expires_ms),
                names_our_focus: event.content["focus_active"]["type"] == events::FOCUS_TYPE,
            };
            self.calling.insert(state_key.to_owned(), membership);
        }
        false
    }

    #[must_use]
    pub fn config(&self) -> &VoiceConfig {
        &self.config
    }

    /// The call membership with this state key, if it stands.
    #[must_use]
    pub fn call_membership(&self, state_key: &str) -> Option<&CallMembership> {
        self.calling.get(state_key)
    }

    /// Whether `user_id` may be in the call.
    ///
    /// # Errors
    /// The first reason found.
    pub fn may_join(&self, user_id: &str) -> Result<(), Barred> {
        let voice = matches!(self.room_type.as_deref(), Some(events::ROOM_TYPE_VOICE | events::ROOM_TYPE_CALL));
        if !voice {
            return Err(Barred::NotAVoiceRoom);
        }
        if !self.joined.contains(user_id) {
            return Err(Barred::NotJoined);
        }
        let server = user_id.split_once(':').map_or("", |(_, server)| server);
        if self.acl.as_ref().is_some_and(|acl| !acl.allows(server)) {
            return Err(Barred::ServerExcluded);
        }
        if !self.has_right(user_id, rights::LISTEN) {
            return Err(Barred::MayNotListen);
        }
        Ok(())
    }

    #[must_use]
    pub fn rights(&self, user_id: &str) -> Rights {
        let kick_level = self.power.as_ref().map_or(POWER_TO_KICK_DEFAULT, |power| power.kick);
        Rights {
            speak: self.has_right(user_id, rights::SPEAK),
            mute_others: self.has_right(user_id, rights::MUTE_OTHERS),
            kick: self.power_of(user_id) >= kick_level,
        }
    }

    /// Whether `actor` stands above `target`, as kicking asks for.
    #[must_use]
    pub fn outranks(&self, actor: &str, target: &str) -> bool {
        self.power_of(actor) > self.power_of(target)
    }

    fn has_right(&self, user_id: &str, (key, default): (&str, i64)) -> bool {
        let level = self.power.as_ref().and_then(|power| power.events.get(key).copied()).unwrap_or(default);
        self.power_of(user_id) >= level
    }

    fn power_of(&self, user_id: &str) -> i64 {
        if self.creators.iter().any(|creator| creator == user_id) {
            return i64::MAX;
        }
        match &self.power {
            Some(power) => power.users.get(user_id).copied().unwrap_or(power.users_default),
            None if self.first_creator.as_deref() == Some(user_id) => 100,
            None => 0,
        }
    }
}

/// Room version 12 and later give creators unbounded power. Names that are not numbers are experiments without it.
fn has_privileged_creators(room_version: &str) -> bool {
    room_version.parse::<u32>().is_ok_and(|version| version >= 12)
}

const POWER_TO_KICK_DEFAULT: i64 = 50;

#[derive(Clone, Debug)]
struct PowerLevels {
    users: HashMap<String, i64>,
    users_default: i64,
    events: HashMap<String, i64>,
    kick: i64,
}

impl PowerLevels {
    fn read(content: &Value) -> Self {
        let map = |key: &str| -> HashMap<String, i64> {
            let entries = content[key].as_object().into_iter().flatten();
            entries.filter_map(|(name, value)| Some((name.clone(), level(value)?))).collect()
        };
        Self {
            users: map("users"),
            users_default: level(&content["users_default"]).unwrap_or(0),
            events: map("events"),
            kick: level(&content["kick"]).unwrap_or(POWER_TO_KICK_DEFAULT),
        }
    }
}

/// Old room versions allow integers in strings.
fn level(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.trim().parse().ok())
}

#[derive(Clone, Debug)]
struct ServerAcl {
    allow: Vec<String>,
    deny: Vec<String>,
    allow_ip_literals: bool,
}

impl ServerAcl {
    fn read(content: &Value) -> Self {
        let list = |key: &str| -> Vec<String> {
            let patterns = content[key].as_array().into_iter().flatten();
            patterns.filter_map(|pattern| pattern.as_str().map(str::to_ascii_lowercase)).collect()
        };
        Self {
            allow: list("allow"),
            deny: list("deny"),
            allow_ip_literals: content["allow_ip_literals"].as_bool().unwrap_or(true),
        }
    }

    fn allows(&self, server: &str) -> bool {
        let host = without_port(server).to_ascii_lowercase();
        let is_ip_literal = host.starts_with('[') || host.parse::<std::net::Ipv4Addr>().is_ok();
        if is_ip_literal && !self.allow_ip_literals {
            return false;
        }
        let matches = |patterns: &[String]| patterns.iter().any(|pattern| glob(pattern.as_bytes(), host.as_bytes()));
        !matches(&self.deny) && matches(&self.allow)
    }
}

fn without_port(server: &str) -> &str {
    match server.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => server,
    }
}

/// `*` is any run of characters, `?` any one. Linear in the text for each star, no recursion.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == b'?' || c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((star_p, star_t)) = star else { return false };
                star = Some((star_p, star_t + 1));
                p = star_p + 1;
                t = star_t + 1;
            }
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}
