//! What an event says about another: edits, reactions, threads, replies.
//!
//! Read with patience: whatever is not a relation is none. Works on encrypted events as well,
//! whose `m.relates_to` stays readable.
//!
//! Source: <https://spec.matrix.org/v1.19/client-server-api/#forming-relationships-between-events>.

use ruma::OwnedEventId;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    auth::facts::field,
    event::{Pdu, kind},
};

pub const ANNOTATION: &str = "m.annotation";
pub const REPLACE: &str = "m.replace";
pub const THREAD: &str = "m.thread";
pub const REFERENCE: &str = "m.reference";

/// What an event says about others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RelatesTo {
    /// The relation proper, if there is one.
    pub relation: Option<Relation>,
    /// The event it answers; for a falling-back thread event just the newest of the thread.
    pub in_reply_to: Option<OwnedEventId>,
    /// Whether `in_reply_to` is only there for clients that know no threads.
    pub is_falling_back: bool,
}

/// A relation of one event to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    /// `m.replace`, `m.annotation`, `m.thread`, or any other name.
    pub rel_type: String,
    pub parent: OwnedEventId,
    /// What a reaction says, usually an emoji.
    pub key: Option<String>,
}

impl RelatesTo {
    fn parent_as(&self, rel_type: &str) -> Option<&OwnedEventId> {
        self.relation.as_ref().filter(|relation| relation.rel_type == rel_type).map(|relation| &relation.parent)
    }

    /// The event that began the thread this one is in.
    pub fn thread_root(&self) -> Option<&OwnedEventId> {
        self.parent_as(THREAD)
    }

    /// The event this one edits.
    pub fn replaces(&self) -> Option<&OwnedEventId> {
        self.parent_as(REPLACE)
    }

    /// The event somebody really meant to answer.
    pub fn replied_to(&self) -> Option<&OwnedEventId> {
        self.in_reply_to.as_ref().filter(|_| !self.is_falling_back)
    }
}

/// What an event's content says about others; `None` if nothing.
pub fn relates_to(content: &RawValue) -> Option<RelatesTo> {
    #[derive(Deserialize)]
    struct Reply {
        event_id: OwnedEventId,
    }
    // Nearly every message has no relation: spare it the parsing.
    if !content.get().contains("m.relates_to") {
        return None;
    }
    let said: Box<RawValue> = field(content, "m.relates_to")?;
    let relation = field::<String>(&said, "rel_type")
        .zip(field::<OwnedEventId>(&said, "event_id"))
        .map(|(rel_type, parent)| Relation { rel_type, parent, key: field(&said, "key") });
    let in_reply_to = field::<Reply>(&said, "m.in_reply_to").map(|reply| reply.event_id);
    if relation.is_none() && in_reply_to.is_none() {
        return None;
    }
    let is_falling_back = relation.as_ref().is_some_and(|relation| relation.rel_type == THREAD)
        && field(&said, "is_falling_back").unwrap_or(false);
    Some(RelatesTo { relation, in_reply_to, is_falling_back })
}

/// Whether an edit may replace the content of the event it names.
///
/// Source: <https://spec.matrix.org/v1.19/client-server-api/#validity-of-replacement-events>.
pub fn is_valid_replacement(edit: &Pdu, original: &Pdu) -> bool {
    let said = relates_to(&edit.content);
    let original_said = relates_to(&original.content);
    said.as_ref().and_then(RelatesTo::replaces) == Some(&original.event_id)
        && edit.room_id == original.room_id
        && edit.sender == original.sender
        && edit.kind == original.kind
        && edit.state_key.is_none()
        && original.state_key.is_none()
        && original_said.as_ref().and_then(RelatesTo::replaces).is_none()
        // Inside an encrypted event only the reader can look for it.
        && (edit.kind == kind::ENCRYPTED
            || field::<Box<RawValue>>(&edit.content, "m.new_content").is_some())
}
