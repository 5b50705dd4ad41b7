//! What a client does not want to see. Unknown keys are ignored, as the specification wants.

use std::borrow::Cow;

use serde::Deserialize;

/// Events of a room's timeline when a filter does not say how many.
pub const TIMELINE_LEN: usize = 20;
/// Events of a room's timeline at most.
pub const TIMELINE_LEN_MAX: usize = 100;

/// A filter as clients upload it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Filter {
    /// Which rooms, and what of them.
    pub room: RoomFilter,
    /// Which presence.
    pub presence: EventFilter,
    /// Which global account data.
    pub account_data: EventFilter,
}

/// Which rooms, and what of them.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct RoomFilter {
    /// Only these rooms.
    pub rooms: Option<Vec<String>>,
    /// None of these rooms.
    pub not_rooms: Vec<String>,
    /// Rooms left long ago as well.
    pub include_leave: bool,
    /// Which events of the timeline.
    pub timeline: EventFilter,
    /// Which state.
    pub state: EventFilter,
    /// Which receipts and typing.
    pub ephemeral: EventFilter,
    /// Which account data of rooms.
    pub account_data: EventFilter,
}

/// Which events.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct EventFilter {
    /// How many.
    pub limit: Option<u64>,
    /// Only of these types; `*` stands for anything.
    pub types: Option<Vec<String>>,
    /// None of these types.
    pub not_types: Vec<String>,
    /// Only by these senders.
    pub senders: Option<Vec<String>>,
    /// None by these senders.
    pub not_senders: Vec<String>,
    /// Only in these rooms.
    pub rooms: Option<Vec<String>>,
    /// None in these rooms.
    pub not_rooms: Vec<String>,
    /// Only with (or without) a `url` in the content.
    pub contains_url: Option<bool>,
    /// Members only when they are needed to show the timeline.
    pub lazy_load_members: bool,
    /// Members again although they were sent before.
    pub include_redundant_members: bool,
    /// Counts of each thread apart.
    pub unread_thread_notifications: bool,
}

impl RoomFilter {
    /// Whether anything of a room is wanted.
    #[must_use]
    pub fn wants_room(&self, room_id: &str) -> bool {
        is_listed(self.rooms.as_deref(), &self.not_rooms, room_id)
    }

    /// Whether members come only when they are needed.
    #[must_use]
    pub fn is_lazy(&self) -> bool {
        self.state.lazy_load_members || self.timeline.lazy_load_members
    }
}

impl EventFilter {
    /// How many events of a timeline.
    #[must_use]
    pub fn timeline_len(&self) -> usize {
        self.limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(TIMELINE_LEN).min(TIMELINE_LEN_MAX)
    }

    /// Whether anything of a room is wanted.
    #[must_use]
    pub fn wants_room(&self, room_id: &str) -> bool {
        is_listed(self.rooms.as_deref(), &self.not_rooms, room_id)
    }

    /// Whether a type is wanted.
    #[must_use]
    pub fn wants_type(&self, kind: &str) -> bool {
        let matches = |pattern: &String| glob(pattern, kind);
        self.types.as_ref().is_none_or(|types| types.iter().any(matches)) && !self.not_types.iter().any(matches)
    }

    /// Whether an event is wanted.
    #[must_use]
    pub fn wants(&self, kind: &str, sender: &str, content: &str) -> bool {
        self.wants_type(kind)
            && is_listed(self.senders.as_deref(), &self.not_senders, sender)
            && self.contains_url.is_none_or(|wanted| wanted == has_url(content))
    }

    /// Whether it lets every event pass.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.types.is_none()
            && self.not_types.is_empty()
            && self.senders.is_none()
            && self.not_senders.is_empty()
            && self.contains_url.is_none()
    }
}

fn is_listed(only: Option<&[String]>, none: &[String], item: &str) -> bool {
    only.is_none_or(|only| only.iter().any(|i| i == item)) && !none.iter().any(|i| i == item)
}

fn has_url(content: &str) -> bool {
    #[derive(Deserialize)]
    struct Url<'a> {
        #[serde(borrow)]
        url: Option<Cow<'a, str>>,
    }
    serde_json::from_str::<Url<'_>>(content).is_ok_and(|content| content.url.is_some())
}

/// Whether `pattern`, in which `*` stands for any text, matches all of `text`.
fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.len() >= last.len() && rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, text, expected) in [
            ("m.room.message", "m.room.message", true),
            ("m.room.*", "m.room.message", true),
            ("*", "", true),
            ("m.*.message", "m.room.message", true),
            ("m.*.message", "m.room.messages", false),
            ("a*a", "a", false),
            ("", "x", false),
        ] {
            assert_eq!(glob(pattern, text), expected, "{pattern} on {text}");
        }
    }
}
