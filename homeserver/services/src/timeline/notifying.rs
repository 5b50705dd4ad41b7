//! Whom an event notifies, by the rules of those who read it.
//!
//! What notifies everybody with default rules is counted by the room's sequence alone, one number for all members; only what goes
//! beyond it (a highlight, a member whose own rules differ) is written for the user concerned.

use std::{collections::HashMap, sync::Arc};

use futures_util::future::BoxFuture;
use quick_cache::sync::Cache;
use room::{auth::facts, event::kind};
use ruma::UserId;
use storage::{events::flags, timeline::PushItem};

use super::{Timeline, effects, events::Stored, now::RoomNow};
use crate::{
    Result,
    push_rules::{Called, Judgement, Names, Outcome, Reader, RoomFacts},
};

/// States whose members' names are remembered.
const CALLED_STATES_MAX: usize = 2000;
/// Local members whose names are looked for in texts; in larger rooms only `m.mentions` counts.
const CALLED_MEMBERS_MAX: usize = 500;
/// Entries of a state that is searched for names; in larger rooms only `m.mentions` counts.
const CALLED_STATE_LEN_MAX: usize = 5000;

/// What local members are called, by the number of the state that says so.
pub(super) type CalledCache = Arc<Cache<i64, Arc<[Called]>>>;

pub(super) fn called_cache() -> CalledCache {
    Arc::new(Cache::new(CALLED_STATES_MAX))
}

/// Whom an event notifies.
#[derive(Debug, Default)]
pub(super) struct Notified {
    /// Everybody with default rules.
    pub by_default: bool,
    judgement: Judgement,
}

impl Notified {
    /// As rows.
    pub(super) fn items(self, event: &Stored, thread_nid: i64) -> Vec<PushItem> {
        self.judgement
            .exceptions
            .into_iter()
            .map(|exception| PushItem {
                user_nid: exception.user_nid,
                room_nid: event.room_nid,
                event_nid: event.nid,
                thread_nid,
                notify: exception.notify,
                highlight: exception.highlight,
                actions: exception.actions.to_string(),
            })
            .collect()
    }
}

/// What members are called in a room as it is now.
struct RoomNames<'a> {
    timeline: &'a Timeline,
    now: &'a RoomNow,
}

impl Names for RoomNames<'_> {
    fn called(&self) -> BoxFuture<'_, Result<Arc<[Called]>>> {
        Box::pin(self.timeline.called(self.now))
    }
}

impl Timeline {
    /// Whom an event notifies that is about to be accepted in `now`.
    pub(super) async fn notified(&self, now: &RoomNow, event: &Arc<Stored>) -> Result<Notified> {
        let pdu = &event.pdu;
        let mut readers = now.inhabitants.local.clone();
        if pdu.kind == kind::MEMBER
            && let Some(target) = pdu.state_key.as_deref().and_then(|id| <&UserId>::try_from(id).ok())
            && self.cx.is_local(target)
        {
            let nid = self.cx.numbers.user(target).await?;
            if let Err(at) = readers.binary_search(&nid) {
                readers.insert(at, nid);
            }
        }
        // What was redacted before it came says nothing to anybody.
        if pdu.is_create() || event.has(flags::REDACTED) {
            return Ok(Notified::default());
        }
        let facts = self.push_facts(now, event).await?;
        let judgement = self.rules.evaluate(pdu, &facts, &readers, &RoomNames { timeline: self, now }).await?;
        Ok(Notified { by_default: judgement.default_notifies, judgement })
    }

    /// What one user's rules say of an event in a room as it is now; `None` when it does not notify, as one that was redacted.
    ///
    /// # Errors
    /// The database's.
    pub async fn outcome(
        &self,
        now: &RoomNow,
        event: &Stored,
        user_nid: i64,
        user_id: &UserId,
    ) -> Result<Option<Outcome>> {
        if event.has(flags::REDACTED) {
            return Ok(None);
        }
        let facts = self.push_facts(now, event).await?;
        let display_name = self.display_name(now, user_id).await?;
        let reader = Reader { user_nid, user_id, display_name: display_name.as_deref() };
        self.rules.outcome(&event.pdu, &facts, reader).await
    }

    /// What push rules look at, of a room as it is now.
    async fn push_facts(&self, now: &RoomNow, event: &Stored) -> Result<RoomFacts> {
        Ok(RoomFacts {
            room_id: now.room_id.clone(),
            member_count: u64::try_from(now.inhabitants.joined).unwrap_or(0),
            sender_may_notify_room: self.powers(now).await?.can_notify(&event.pdu.sender, "room"),
        })
    }

    /// What a member calls themselves in a room as it is now.
    ///
    /// # Errors
    /// The database's.
    pub async fn display_name(&self, now: &RoomNow, user_id: &UserId) -> Result<Option<String>> {
        let member = self.state_event(now, kind::MEMBER, user_id.as_str()).await?;
        Ok(member.and_then(|member| facts::field::<String>(&member.pdu.content, "displayname")))
    }

    /// What local members are called; nothing in rooms too large for it.
    async fn called(&self, now: &RoomNow) -> Result<Arc<[Called]>> {
        if now.inhabitants.local.len() > CALLED_MEMBERS_MAX || now.snapshot.state.len() > CALLED_STATE_LEN_MAX {
            return Ok(Arc::from([]));
        }
        if let Some(called) = self.called.get(&now.snapshot.nid) {
            return Ok(called);
        }
        let keys: Vec<(i64, i64)> =
            now.snapshot.state.iter().map(|(key, event)| (effects::number(key.0), effects::number(event.0))).collect();
        let key_nids: Vec<i64> = keys.iter().map(|(key, _)| *key).collect();
        let names = self.cx.numbers.state_key_names(&key_nids).await?;
        let ids = self.cx.numbers.user_names(&now.inhabitants.local).await?;
        let locals: HashMap<&str, i64> = ids.iter().map(|(nid, id)| (&**id, *nid)).collect();
        let members: Vec<(i64, i64)> = keys
            .iter()
            .filter_map(|(key, event)| {
                let (event_kind, state_key) = names.get(key)?;
                let user_nid = locals.get(&**state_key).filter(|_| &**event_kind == kind::MEMBER)?;
                Some((*user_nid, *event))
            })
            .collect();
        let events = self.events.by_nids(&members.iter().map(|(_, event)| *event).collect::<Vec<_>>()).await?;
        let called: Arc<[Called]> = members
            .iter()
            .filter_map(|(user_nid, event)| {
                let display_name = facts::field::<String>(&events.get(event)?.pdu.content, "displayname");
                Some(Called::new(*user_nid, ids.get(user_nid)?, display_name))
            })
            .collect();
        if now.snapshot.nid != 0 {
            self.called.insert(now.snapshot.nid, Arc::clone(&called));
        }
        Ok(called)
    }
}
