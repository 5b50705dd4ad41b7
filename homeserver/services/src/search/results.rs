//! What is told of the events that match.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use room::{
    auth::facts,
    event::{RoomIdShown, kind},
};
use serde::Serialize;
use serde_json::value::RawValue;
use storage::events;

use super::{Around, CONTEXT_LEN_MAX, Criteria, Match, Search};
use crate::{
    Result,
    place::Token,
    reading::Access,
    timeline::events::Stored,
    view::{Options, Shown},
};

/// How results are shown.
const OPTIONS: Options = Options { room_id: RoomIdShown::Yes, bundles: true, past: true };
/// How state is shown.
const PLAIN: Options = Options { room_id: RoomIdShown::Yes, bundles: false, past: true };

/// What is known of the results as a whole.
#[derive(Debug)]
pub struct Found {
    /// How many there are.
    pub count: usize,
    /// The words searched for.
    pub highlights: Vec<String>,
    /// Where the next page begins.
    pub next_batch: Option<String>,
}

/// A page of results, as the specification writes it.
#[derive(Debug, Serialize)]
pub struct Answer {
    count: usize,
    highlights: Vec<String>,
    results: Vec<One>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    state: BTreeMap<String, Vec<Box<RawValue>>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    groups: BTreeMap<String, BTreeMap<String, Group>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_batch: Option<String>,
}

#[derive(Debug, Serialize)]
struct One {
    rank: f64,
    result: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<Context>,
}

#[derive(Debug, Serialize)]
struct Context {
    start: String,
    end: String,
    events_before: Vec<Box<RawValue>>,
    events_after: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    profile_info: Option<BTreeMap<String, Profile>>,
}

#[derive(Debug, Serialize)]
struct Profile {
    #[serde(skip_serializing_if = "Option::is_none")]
    displayname: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    avatar_url: Option<String>,
}

#[derive(Debug, Default, Serialize)]
struct Group {
    order: usize,
    results: Vec<String>,
}

impl Search {
    /// Write a page.
    pub(super) async fn answer(
        &self,
        accesses: &BTreeMap<i64, Access>,
        criteria: &Criteria,
        page: &[Match],
        found: Found,
    ) -> Result<Answer> {
        let mut results = Vec::with_capacity(page.len());
        for one in page {
            let Some(access) = accesses.get(&one.event.room_nid) else { continue };
            let shown = self.shown(access, vec![Arc::clone(&one.event)], OPTIONS).await?;
            let Some(result) = shown.into_iter().next() else { continue };
            let context = match &criteria.event_context {
                Some(around) => Some(self.context(access, &one.event, around).await?),
                None => None,
            };
            results.push(One { rank: one.rank, result, context });
        }
        let mut state = BTreeMap::new();
        if criteria.include_state {
            let rooms: BTreeSet<i64> = page.iter().map(|one| one.event.room_nid).collect();
            for access in rooms.iter().filter_map(|nid| accesses.get(nid)) {
                let events = self.timeline.state_events(&access.now.snapshot).await?;
                state.insert(access.now.room_id.to_string(), self.shown(access, events, PLAIN).await?);
            }
        }
        Ok(Answer {
            count: found.count,
            highlights: found.highlights,
            results,
            state,
            groups: groups(criteria, page),
            next_batch: found.next_batch,
        })
    }

    async fn shown(&self, access: &Access, events: Vec<Arc<Stored>>, how: Options) -> Result<Vec<Box<RawValue>>> {
        let shown: Vec<Shown> = events.into_iter().map(Shown::from).collect();
        self.view.render(&access.reader, &shown, how).await
    }

    /// What stands around an event: earlier events the latest first, later ones the earliest first.
    async fn context(&self, access: &Access, event: &Arc<Stored>, around: &Around) -> Result<Context> {
        let limit = |len: usize| i64::try_from(len.min(CONTEXT_LEN_MAX)).unwrap_or(0);
        let mut tx = self.cx.store.read().await?;
        let before = events::before(&mut tx, event.room_nid, event.place(), limit(around.before_limit)).await?;
        let after = events::after(&mut tx, event.room_nid, event.place(), limit(around.after_limit)).await?;
        drop(tx);
        let before = self.timeline.events.read(before).await?;
        let after = self.timeline.events.read(after).await?;
        let first = before.last().unwrap_or(event).place();
        let last = after.last().unwrap_or(event).place();
        let before = self.reading.visible(access, before).await?;
        let after = self.reading.visible(access, after).await?;
        let profile_info = if around.include_profile {
            let all = before.iter().chain(&after).chain([event]);
            Some(self.profiles(all).await?)
        } else {
            None
        };
        Ok(Context {
            start: Token::Before(first).to_string(),
            end: Token::after(last).to_string(),
            events_before: self.shown(access, before, OPTIONS).await?,
            events_after: self.shown(access, after, OPTIONS).await?,
            profile_info,
        })
    }

    /// What the senders of events were called when they sent them.
    async fn profiles<'a>(&self, events: impl Iterator<Item = &'a Arc<Stored>>) -> Result<BTreeMap<String, Profile>> {
        let mut profiles = BTreeMap::new();
        for event in events {
            let sender = event.pdu.sender.as_str();
            let Some(state_nid) = event.state_nid.filter(|_| !profiles.contains_key(sender)) else { continue };
            let snapshot = self.timeline.snapshots.by_nid(state_nid).await?;
            let member = self.timeline.state_event_in(&snapshot, kind::MEMBER, sender).await?;
            let text = |name| member.as_ref().and_then(|member| facts::field::<String>(&member.pdu.content, name));
            let profile = Profile { displayname: text("displayname"), avatar_url: text("avatar_url") };
            profiles.insert(sender.to_owned(), profile);
        }
        Ok(profiles)
    }
}

fn groups(criteria: &Criteria, page: &[Match]) -> BTreeMap<String, BTreeMap<String, Group>> {
    let mut groups: BTreeMap<String, BTreeMap<String, Group>> = BTreeMap::new();
    for grouping in &criteria.groupings.group_by {
        let of: fn(&Match) -> String = match grouping.key.as_str() {
            "room_id" => |one| one.event.pdu.room_id.to_string(),
            "sender" => |one| one.event.pdu.sender.to_string(),
            _ => continue,
        };
        let values = groups.entry(grouping.key.clone()).or_default();
        for one in page {
            // Groups come in the order of their best result.
            let order = values.len() + 1;
            let group = values.entry(of(one)).or_insert(Group { order, results: Vec::new() });
            group.results.push(one.event.pdu.event_id.to_string());
        }
    }
    groups
}
