//! What an accepted event does to its room besides standing in it.

use std::sync::Arc;

use room::{
    auth::{Powers, facts},
    event::{Pdu, kind},
    redact, relation,
    state::{EventNumber, Layer, StateKeyNumber},
};
use ruma::{EventId, OwnedEventId, UserId, events::room::member::MembershipState};
use storage::{
    events::flags,
    relations::{self, NewRelation, REDACTION, Thread},
    rooms::Facts,
    timeline::{ReadMark, StateChange},
};

use super::{
    Timeline,
    cell::Working,
    events::Stored,
    now::{Move, RoomNow},
    persist::Effects,
};
use crate::Result;

/// How many events one behind the other are looked through for the thread they are in (the specification recommends 3).
pub const THREAD_HOPS_MAX: i64 = 3;

/// The words of a membership in the tables.
#[must_use]
pub fn membership_word(membership: &MembershipState) -> &str {
    match membership {
        MembershipState::Join => "join",
        MembershipState::Invite => "invite",
        MembershipState::Ban => "ban",
        MembershipState::Knock => "knock",
        _ => "leave",
    }
}

/// Where an event stands among its lane's notifications.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Lane {
    /// Root of its thread, or 0.
    pub thread_nid: i64,
    /// Notifying events of the lane so far, the event included.
    pub seq: i64,
    /// Whether it notifies by default.
    pub notifies: bool,
}

impl Timeline {
    /// Put the changes of current state into `now` and `effects`: members, facts, the log of changes.
    ///
    /// `change` leads from the state of `now` to `snapshot`'s; `cause` is the event whose arrival caused it.
    pub(super) async fn change_state(
        &self,
        now: &mut RoomNow,
        cause: i64,
        change: &Layer,
        own: Option<&Arc<Stored>>,
        effects: &mut Effects,
    ) -> Result<()> {
        let added = change.added().iter().map(|(key, event)| (*key, Some(*event)));
        let removed = change.removed().iter().map(|key| (*key, None));
        let entries: Vec<(StateKeyNumber, Option<EventNumber>)> = added.chain(removed).collect();
        let keys: Vec<i64> = entries.iter().map(|(key, _)| number(key.0)).collect();
        let names = self.cx.numbers.state_key_names(&keys).await?;
        let mut wanted: Vec<i64> = entries.iter().filter_map(|(_, event)| event.map(|e| number(e.0))).collect();
        wanted.extend(entries.iter().filter_map(|(key, _)| now.state_event(number(key.0))));
        if let Some(own) = own {
            wanted.retain(|nid| *nid != own.nid);
        }
        let mut events = self.events.by_nids(&wanted).await?;
        if let Some(own) = own {
            events.insert(own.nid, Arc::clone(own));
        }
        let mut facts = Facts::clone(&now.facts);
        let mut inhabitants = None;
        for (key, event) in entries {
            let state_key_nid = number(key.0);
            let event_nid = event.map(|e| number(e.0));
            let prev_event_nid = now.state_event(state_key_nid);
            effects.state_changes.push(StateChange {
                cause_nid: cause,
                room_nid: now.nid,
                state_key_nid,
                event_nid,
                prev_event_nid,
            });
            let Some((event_kind, state_key)) = names.get(&state_key_nid) else { continue };
            let pdu = event_nid.and_then(|nid| events.get(&nid)).map(|e| &*e.pdu);
            if &**event_kind == kind::MEMBER {
                let before = prev_event_nid.and_then(|nid| events.get(&nid)).map(|e| &*e.pdu);
                let all = inhabitants.get_or_insert_with(|| now.inhabitants.as_ref().clone());
                self.change_member(now, all, state_key, (before, pdu), event_nid, effects).await?;
            } else {
                effects.facts |= learn(&mut facts, event_kind, state_key, pdu);
            }
        }
        if let Some(all) = inhabitants {
            effects.facts |= facts.joined_count != all.joined || facts.invited_count != all.invited;
            (facts.joined_count, facts.invited_count) = (all.joined, all.invited);
            effects.is_deserted = all.local.is_empty() && !now.inhabitants.local.is_empty();
            now.inhabitants = Arc::new(all);
        }
        if effects.facts {
            now.facts = Arc::new(facts);
        }
        Ok(())
    }

    async fn change_member(
        &self,
        now: &RoomNow,
        all: &mut super::now::Inhabitants,
        state_key: &str,
        (before, after): (Option<&Pdu>, Option<&Pdu>),
        event_nid: Option<i64>,
        effects: &mut Effects,
    ) -> Result<()> {
        let Ok(user) = <&UserId>::try_from(state_key) else { return Ok(()) };
        let user_nid = self.cx.numbers.user(user).await?;
        let server_nid = self.cx.numbers.server(user.server_name()).await?;
        let (from, to) = (facts::membership_of(before), facts::membership_of(after));
        let (from, to) = (membership_word(&from), membership_word(&to));
        let is_local = self.cx.is_local(user);
        all.apply(Move { user_nid, server_nid, is_local, from, to });
        match event_nid {
            Some(event_nid) => effects.members.push((user_nid, to.to_owned(), event_nid)),
            None => effects.members_gone.push(user_nid),
        }
        if !is_local && from == "join" && to != "join" {
            effects.strangers_gone.push(user_nid);
        }
        if is_local {
            effects.users.push(user_nid);
            if to == "join"
                && from != "join"
                && let Some(event_nid) = event_nid
            {
                effects.read_marks.push(ReadMark {
                    user_nid,
                    room_nid: now.nid,
                    thread_nid: 0,
                    event_nid,
                    seq: now.notify_seq,
                });
                if now.last_pos > 0 {
                    effects.newcomers.push(user_nid);
                }
            }
        }
        Ok(())
    }

    /// What the event says about others: its relation, its thread, what it redacts.
    pub(super) async fn relate(
        &self,
        working: &mut Working,
        event: &Arc<Stored>,
        sender_nid: i64,
        notifies: bool,
        effects: &mut Effects,
    ) -> Result<Lane> {
        let pdu = &event.pdu;
        let mut lane = Lane { thread_nid: 0, seq: 0, notifies };
        let (mut parent, mut rel_type, mut key) = (None, REDACTION.to_owned(), None);
        if pdu.kind == kind::REDACTION {
            if let Some(target) = &pdu.redacts {
                parent = Some(target.clone());
                self.redact(&working.now, pdu, target, effects).await?;
            }
        } else if pdu.state_key.is_none()
            && let Some(found) = relation::relates_to(&pdu.content).and_then(|found| found.relation)
            && !found.rel_type.is_empty()
        {
            (parent, rel_type, key) = (Some(found.parent), found.rel_type, found.key);
        }
        if let Some(parent) = parent {
            if rel_type == relation::THREAD {
                lane.thread_nid = self.extend_thread(working, event, &parent, notifies, effects).await?;
            } else if rel_type != REDACTION {
                lane.thread_nid = self.follow_into_thread(working, event, &parent, notifies, effects).await?;
            }
            if lane.thread_nid != 0 {
                lane.seq = working.threads.get(&lane.thread_nid).map_or(0, |t| t.notify_seq);
            }
            effects.relation = Some(NewRelation {
                parent_id: parent.to_string(),
                child_nid: event.nid,
                room_nid: event.room_nid,
                rel_type,
                kind: pdu.kind.clone(),
                sender_nid,
                key,
            });
        }
        Ok(lane)
    }

    /// Add an event to its thread. Returns the root's number, 0 when the root is not an event of this room that may have one.
    async fn extend_thread(
        &self,
        working: &mut Working,
        event: &Arc<Stored>,
        root_id: &EventId,
        notifies: bool,
        effects: &mut Effects,
    ) -> Result<i64> {
        let Some(root) = self.events.by_id(root_id).await? else { return Ok(0) };
        if root.room_nid != event.room_nid {
            return Ok(0);
        }
        let mut thread = self.thread(working, root.nid).await?.unwrap_or(Thread {
            root_nid: root.nid,
            room_nid: event.room_nid,
            last_nid: 0,
            last_depth: 0,
            count: 0,
            notify_seq: 0,
        });
        thread.count += 1;
        thread.notify_seq += i64::from(notifies);
        (thread.last_depth, thread.last_nid) = event.place();
        working.threads.insert(root.nid, thread);
        effects.thread = Some(thread);
        Ok(root.nid)
    }

    /// A reaction to an event of a thread, or an edit of one, is in the thread too, though none of its replies. Returns the root's
    /// number, 0 when `parent` is in no thread.
    async fn follow_into_thread(
        &self,
        working: &mut Working,
        event: &Arc<Stored>,
        parent: &EventId,
        notifies: bool,
        effects: &mut Effects,
    ) -> Result<i64> {
        let Some(root_nid) = self.thread_of(event.room_nid, parent).await? else { return Ok(0) };
        let Some(mut thread) = self.thread(working, root_nid).await? else { return Ok(0) };
        thread.notify_seq += i64::from(notifies);
        working.threads.insert(root_nid, thread);
        effects.thread = notifies.then_some(thread);
        Ok(root_nid)
    }

    /// The root of the thread an event is in: it names the thread, or speaks about an event that does, at most
    /// [`THREAD_HOPS_MAX`] away.
    async fn thread_of(&self, room_nid: i64, event_id: &EventId) -> Result<Option<i64>> {
        let mut event_id = event_id.to_owned();
        for _ in 0..THREAD_HOPS_MAX {
            let event = self.events.by_id(&event_id).await?.filter(|event| event.room_nid == room_nid);
            let said = event.and_then(|event| relation::relates_to(&event.pdu.content)?.relation);
            let Some(said) = said else { return Ok(None) };
            if said.rel_type == relation::THREAD {
                let root = self.events.by_id(&said.parent).await?.filter(|root| root.room_nid == room_nid);
                return Ok(root.map(|root| root.nid));
            }
            event_id = said.parent;
        }
        Ok(None)
    }

    /// A thread as it is with what waits to be stored.
    async fn thread(&self, working: &Working, root_nid: i64) -> Result<Option<Thread>> {
        if let Some(thread) = working.threads.get(&root_nid) {
            return Ok(Some(*thread));
        }
        Ok(relations::threads(&mut self.cx.store.read().await?, &[root_nid]).await?.pop())
    }

    /// Take the content out of the target, if we have it and the sender may.
    async fn redact(&self, now: &RoomNow, pdu: &Pdu, target: &OwnedEventId, effects: &mut Effects) -> Result<()> {
        let Some(target) = self.events.by_id(target).await? else { return Ok(()) };
        if target.room_nid != now.nid || target.has(flags::REDACTED) {
            return Ok(());
        }
        let powers = self.powers(now).await?;
        if redact::takes_effect(pdu, &target.pdu, &powers) {
            effects.redacted.push(Arc::new(redacted(&target, now)?));
        }
        Ok(())
    }

    /// A room's powers as its current state gives them.
    ///
    /// # Errors
    /// The database's; [`crate::Error::Internal`] for a room without a create event.
    pub async fn powers(&self, now: &RoomNow) -> Result<Arc<Powers>> {
        let create = self.state_event(now, kind::CREATE, "").await?;
        let levels = self.state_event(now, kind::POWER_LEVELS, "").await?;
        let create = create.ok_or_else(|| crate::Error::internal("a room without a create event"))?;
        let key = (create.nid, levels.as_ref().map_or(0, |levels| levels.nid));
        // A redacted event says less than it did, and is read anew.
        let is_whole = !create.has(flags::REDACTED) && levels.as_ref().is_none_or(|e| !e.has(flags::REDACTED));
        if let Some(powers) = self.powers.get(&key).filter(|_| is_whole) {
            return Ok(powers);
        }
        let powers = Arc::new(Powers::new(&create.pdu, levels.as_ref().map(|e| &*e.pdu), now.rules));
        if is_whole {
            self.powers.insert(key, Arc::clone(&powers));
        }
        Ok(powers)
    }
}

/// An event without its content.
pub(super) fn redacted(target: &Stored, now: &RoomNow) -> Result<Stored> {
    let mut changed = target.clone();
    changed.flags |= flags::REDACTED;
    changed.pdu = Arc::new(redact::redacted(&target.pdu, now.rules)?);
    Ok(changed)
}

/// Update a room's facts by one state event; `None` when the entry went away. True when something changed.
fn learn(facts: &mut Facts, event_kind: &str, state_key: &str, pdu: Option<&Pdu>) -> bool {
    if !state_key.is_empty() {
        return false;
    }
    let text = |name: &str| -> Option<String> {
        pdu.and_then(|p| facts::field::<String>(&p.content, name)).filter(|text| !text.is_empty())
    };
    match event_kind {
        kind::CREATE => {
            facts.kind = text("type");
            facts.creator = pdu.map(|p| p.sender.to_string());
        }
        "m.room.name" => facts.name = text("name"),
        "m.room.topic" => facts.topic = text("topic"),
        "m.room.avatar" => facts.avatar_url = text("url"),
        "m.room.canonical_alias" => facts.canonical_alias = text("alias"),
        "m.room.join_rules" => {
            facts.join_rule = text("join_rule");
            facts.allowed_rooms = pdu
                .map(facts::allowed_rooms)
                .filter(|rooms| !rooms.is_empty())
                .and_then(|rooms| serde_json::to_string(&rooms).ok());
        }
        "m.room.guest_access" => facts.guest_access = text("guest_access"),
        "m.room.history_visibility" => facts.history_visibility = text("history_visibility"),
        "m.room.encryption" => facts.encryption = text("algorithm"),
        "m.room.tombstone" => facts.successor = text("replacement_room"),
        _ => return false,
    }
    true
}

/// A number of the state's, as the database has it.
pub(super) fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
