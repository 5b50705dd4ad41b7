//! The rooms of an answer.

mod ephemeral;
mod others;
mod seen;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use room::{
    auth::facts,
    event::{RoomIdShown, kind},
    state::StateKeyNumber,
};
use ruma::events::room::member::MembershipState;
use serde::Serialize;
use serde_json::value::RawValue;
use storage::{
    members,
    timeline::{self as stream, flags},
};

use super::{Answer, Events, Rooms, Token, unread};
use crate::{
    Result,
    reading::Right,
    timeline::{cell::Recent, events::Stored, now::RoomNow, snapshots::Snapshot},
    view::{Options, Reader, Shown, txn_prefix},
};

/// Members a room without a name is called by.
const HEROES_MAX: i64 = 5;
/// Events looked through for one room when a filter drops most of them.
const LOOKED_AT_MAX: usize = 200;

/// A room the user is in.
#[derive(Debug, Default, Serialize)]
pub(super) struct Joined {
    #[serde(skip_serializing_if = "Summary::is_empty")]
    summary: Summary,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<Events>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state_after: Option<Events>,
    #[serde(rename = "org.matrix.msc4222.state_after", skip_serializing_if = "Option::is_none")]
    unstable_state_after: Option<Events>,
    timeline: Timeline,
    ephemeral: Events,
    pub(super) account_data: Events,
    unread_notifications: unread::Counts,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    unread_thread_notifications: BTreeMap<String, unread::Counts>,
}

/// A room the user was in.
#[derive(Debug, Default, Serialize)]
pub(super) struct Left {
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<Events>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state_after: Option<Events>,
    timeline: Timeline,
}

/// A room the user is invited to.
#[derive(Debug, Serialize)]
pub(super) struct Invited {
    invite_state: Events,
}

/// A room the user asked to be let into.
#[derive(Debug, Serialize)]
pub(super) struct Knocked {
    knock_state: Events,
}

#[derive(Debug, Default, Serialize)]
struct Timeline {
    events: Vec<Box<RawValue>>,
    limited: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    prev_batch: Option<String>,
}

#[derive(Debug, Default, Serialize)]
struct Summary {
    #[serde(rename = "m.heroes", skip_serializing_if = "Option::is_none")]
    heroes: Option<Vec<String>>,
    #[serde(rename = "m.joined_member_count", skip_serializing_if = "Option::is_none")]
    joined: Option<i64>,
    #[serde(rename = "m.invited_member_count", skip_serializing_if = "Option::is_none")]
    invited: Option<i64>,
}

impl Summary {
    fn is_empty(&self) -> bool {
        self.joined.is_none()
    }
}

/// What is known of one room before it is written.
struct Draft {
    now: Arc<RoomNow>,
    /// Everything after this is new to the client; 0 when the whole room is.
    since: i64,
    /// Newest events, oldest first.
    events: Vec<Arc<Recent>>,
    /// Whether there are events between `since` and the first of `events`.
    limited: bool,
    /// What changed in its state since, when it was asked for.
    changes: Vec<stream::StateChangeRow>,
    /// Whether somebody came, went or changed their name since.
    has_moves: bool,
    /// Whether a filter drops events that change the state.
    hides_state: bool,
}

impl Draft {
    /// With nothing in it yet.
    fn new(now: Arc<RoomNow>, since: i64) -> Self {
        Self {
            now,
            since,
            events: Vec::new(),
            limited: false,
            changes: Vec::new(),
            has_moves: false,
            hides_state: false,
        }
    }

    fn is_whole(&self) -> bool {
        self.since == 0
    }
}

/// Who came and went in the rooms of an answer.
#[derive(Debug, Default)]
pub(super) struct Moves {
    /// Whether anybody did.
    pub(super) happened: bool,
    /// Who came into rooms the client knows.
    pub(super) newcomers: HashSet<i64>,
    /// Rooms the client does not know yet.
    pub(super) new_rooms: Vec<i64>,
}

/// A room the user has left.
struct Gone {
    room_nid: i64,
    /// Their member event.
    member_nid: i64,
    /// Its position, when it is new to the client.
    pos: Option<i64>,
    /// Whether the client knew the user in it.
    was_known: bool,
}

/// The user's memberships and what became of them since.
struct Memberships {
    joined: BTreeSet<i64>,
    /// Joined since.
    new: HashSet<i64>,
    /// Left or banned since, or long ago where the client asks for that.
    left: Vec<Gone>,
    invited: Vec<(i64, i64)>,
    knocked: Vec<(i64, i64)>,
}

impl Answer<'_> {
    /// All rooms of the answer.
    pub(super) async fn rooms(&self, since: Option<Token>) -> Result<(Rooms, Moves)> {
        let mut rooms = Rooms::default();
        let memberships = self.memberships(since.is_none()).await?;
        let nows = self.sync.from.timeline.now_many(&memberships.joined.iter().copied().collect::<Vec<_>>()).await?;
        let nows: BTreeMap<i64, Arc<RoomNow>> = nows
            .into_iter()
            .filter(|now| self.request.filter.room.wants_room(now.room_id.as_str()))
            .map(|now| (now.nid, now))
            .collect();
        let (drafts, moves) = self.drafts(&nows, &memberships).await?;
        let unread = {
            let concerned: Vec<&RoomNow> = drafts.iter().map(|d| &*d.now).collect();
            unread::count(&self.sync.cx, &self.sync.from.push_rules, self.request.user.nid, &concerned).await?
        };
        let ephemeral = self.ephemeral(&nows, since).await?;
        let heroes = self.heroes(&drafts).await?;
        for draft in &drafts {
            let mut joined = self.joined(draft).await?;
            joined.summary.heroes = heroes.get(&draft.now.nid).cloned();
            self.put_counts(&mut joined, unread.get(&draft.now.nid)).await?;
            rooms.join.insert(draft.now.room_id.to_string(), joined);
        }
        for (nid, events) in ephemeral {
            let Some(now) = nows.get(&nid) else { continue };
            if !rooms.join.contains_key(now.room_id.as_str()) {
                let quiet = self.quiet_room(now).await?;
                rooms.join.insert(now.room_id.to_string(), quiet);
            }
            if let Some(joined) = rooms.join.get_mut(now.room_id.as_str()) {
                joined.ephemeral.events = events;
            }
        }
        self.others(&memberships, since.is_none(), &mut rooms).await?;
        Ok((rooms, moves))
    }

    async fn memberships(&self, is_first: bool) -> Result<Memberships> {
        let rows = self.sync.watch.memberships(self.entry).await?;
        let mut found = Memberships {
            joined: BTreeSet::new(),
            new: HashSet::new(),
            left: Vec::new(),
            invited: Vec::new(),
            knocked: Vec::new(),
        };
        let mut changed: HashMap<i64, (i64, Option<i64>)> = HashMap::new();
        if !is_first && self.entry.own_changed_since(self.since) {
            let user_id = self.request.user.user_id.as_str();
            if let Some(key) = self.sync.cx.numbers.state_key_if_known(kind::MEMBER, user_id).await? {
                let mut tx = self.sync.cx.store.read().await?;
                for row in stream::key_changes(&mut tx, key, self.since, self.until).await? {
                    let first = changed.entry(row.change.room_nid).or_insert((row.pos, row.change.prev_event_nid));
                    first.0 = row.pos;
                }
            }
        }
        let before: Vec<i64> = changed.values().filter_map(|(_, prev)| *prev).collect();
        let before = self.sync.from.timeline.events.by_nids(&before).await?;
        for row in rows.iter() {
            let change = changed.get(&row.room_nid);
            let was = change.and_then(|(_, prev)| *prev).and_then(|nid| before.get(&nid));
            let was_joined = facts::membership_of(was.map(|event| &*event.pdu)) == MembershipState::Join;
            let gone = |pos: Option<i64>| Gone {
                room_nid: row.room_nid,
                member_nid: row.event_nid,
                pos,
                was_known: was_joined,
            };
            match row.membership.as_str() {
                "join" => {
                    found.joined.insert(row.room_nid);
                    if change.is_some() && !was_joined {
                        found.new.insert(row.room_nid);
                    }
                }
                "invite" if is_first || change.is_some() => found.invited.push((row.room_nid, row.event_nid)),
                "knock" if is_first || change.is_some() => found.knocked.push((row.room_nid, row.event_nid)),
                // Also of a room forgotten at once: the user's other devices must learn that they left.
                "leave" | "ban" if change.is_some() => found.left.push(gone(change.map(|(pos, _)| *pos))),
                "leave" | "ban" if is_first && self.request.filter.room.include_leave && !row.forgotten => {
                    found.left.push(gone(None));
                }
                _ => {}
            }
        }
        Ok(found)
    }

    /// The rooms with something new: their newest events from memory, the rest in one statement.
    async fn drafts(
        &self,
        nows: &BTreeMap<i64, Arc<RoomNow>>,
        memberships: &Memberships,
    ) -> Result<(Vec<Draft>, Moves)> {
        let mut drafts = Vec::new();
        let mut asked: Vec<(i64, i64)> = Vec::new();
        for (nid, now) in nows {
            let is_whole = self.since == 0 || self.request.full_state || memberships.new.contains(nid);
            let since = if is_whole { 0 } else { self.since };
            if !is_whole && now.last_pos <= self.since {
                continue;
            }
            let mut draft = Draft::new(Arc::clone(now), since);
            match self.sync.from.timeline.recent_since(*nid, since) {
                Some(recent) => draft.events = recent.into_iter().filter(|e| e.pos <= self.until).collect(),
                None => asked.push((*nid, since)),
            }
            drafts.push(draft);
        }
        if !asked.is_empty() {
            let found = self.windows(&asked).await?;
            for draft in &mut drafts {
                if let Some(events) = found.get(&draft.now.nid) {
                    draft.events.clone_from(events);
                }
            }
        }
        let filter = &self.request.filter.room.timeline;
        for draft in &mut drafts {
            self.cut(draft, &Right::Joined).await?;
        }
        // A room that is whole to the client, or whose every new event a filter drops, may have nothing to show.
        drafts.retain(|draft| draft.is_whole() || !draft.events.is_empty() || !filter.is_open());
        self.state_changes(&mut drafts).await?;
        let moves = self.moves(&drafts).await?;
        Ok((drafts, moves))
    }

    /// How many of a room's newest events are looked at: one more than shown says whether there is more.
    fn looked_at(&self) -> usize {
        let filter = &self.request.filter.room.timeline;
        if filter.is_open() { filter.timeline_len() + 1 } else { LOOKED_AT_MAX }
    }

    async fn windows(&self, rooms: &[(i64, i64)]) -> Result<HashMap<i64, Vec<Arc<Recent>>>> {
        let limit = i64::try_from(self.looked_at()).unwrap_or(i64::MAX);
        let rows = stream::windows(&mut self.sync.cx.store.read().await?, rooms, self.until, limit).await?;
        self.recent(rows).await
    }

    /// Rows of the stream by room.
    async fn recent(&self, rows: Vec<stream::Row>) -> Result<HashMap<i64, Vec<Arc<Recent>>>> {
        let mut found: HashMap<i64, Vec<Arc<Recent>>> = HashMap::new();
        let mut places = Vec::with_capacity(rows.len());
        let mut events = Vec::with_capacity(rows.len());
        for row in rows {
            places.push((row.pos, row.timeline_flags, row.thread_nid, row.seq, row.txn));
            events.push(row.event);
        }
        let events = self.sync.from.timeline.events.read(events).await?;
        for ((pos, flags, thread_nid, seq, txn), event) in places.into_iter().zip(events) {
            let recent = Recent { pos, flags, thread_nid, seq, txn: txn.map(Arc::from), event };
            found.entry(recent.event.room_nid).or_default().push(Arc::new(recent));
        }
        Ok(found)
    }

    /// Ask what changed in the states of rooms where the events shown do not say it all.
    async fn state_changes(&self, drafts: &mut [Draft]) -> Result<()> {
        let asked: Vec<(i64, i64)> = drafts
            .iter()
            .filter(|draft| !draft.is_whole() && needs_changes(draft, self.request.use_state_after))
            .map(|draft| (draft.now.nid, draft.since))
            .collect();
        if asked.is_empty() {
            return Ok(());
        }
        let rows = stream::state_changes(&mut self.sync.cx.store.read().await?, &asked, self.until).await?;
        for row in rows {
            if let Some(draft) = drafts.iter_mut().find(|draft| draft.now.nid == row.change.room_nid) {
                draft.changes.push(row);
            }
        }
        Ok(())
    }

    async fn joined(&self, draft: &Draft) -> Result<Joined> {
        let mut joined = Joined::default();
        let now = &draft.now;
        let counts_changed = draft.is_whole() || draft.events.iter().any(|e| e.event.pdu.kind == kind::MEMBER);
        if counts_changed {
            joined.summary.joined = Some(now.inhabitants.joined);
            joined.summary.invited = Some(now.inhabitants.invited);
        }
        joined.timeline = self.timeline(draft).await?;
        let state = self.state(draft).await?;
        if self.request.use_state_after && self.request.is_unstable_state_after {
            joined.unstable_state_after = Some(state);
        } else if self.request.use_state_after {
            joined.state_after = Some(state);
        } else {
            // Older clients read every part of a room unasked, so empty lists are written out.
            joined.state = Some(state);
        }
        Ok(joined)
    }

    async fn timeline(&self, draft: &Draft) -> Result<Timeline> {
        let shown: Vec<Shown> =
            draft.events.iter().map(|e| Shown { event: Arc::clone(&e.event), txn: e.txn.clone() }).collect();
        // Nothing can have been said yet about the newest event of a room.
        let bundles = !(draft.events.len() == 1 && draft.events[0].pos >= draft.now.last_pos);
        let options = Options { room_id: RoomIdShown::No, bundles };
        let events = self.sync.from.view.render(&self.reader(), &shown, options).await?;
        let prev_batch = match draft.events.first() {
            Some(first) => {
                let (depth, nid) = first.event.place();
                Some(format!("t{depth}_{nid}"))
            }
            None => draft.limited.then(|| format!("s{}", self.until)),
        };
        let limited = draft.limited || (draft.is_whole() && self.since > 0);
        Ok(Timeline { events, limited, prev_batch })
    }

    fn reader(&self) -> Reader {
        let user = &self.request.user;
        let txn_prefix = user.device_id.as_ref().map(|device| txn_prefix(user.nid, device.as_str()));
        Reader { user_id: user.user_id.clone(), nid: user.nid, txn_prefix }
    }

    /// The state before (or, with `state_after`, after) the events shown, as far as the client cannot know it.
    async fn state(&self, draft: &Draft) -> Result<Events> {
        let filter = &self.request.filter.room;
        let timeline = &self.sync.from.timeline;
        let shown: HashSet<i64> = draft.events.iter().map(|e| e.event.nid).collect();
        let start = match draft.events.first().and_then(|first| first.event.state_nid) {
            Some(nid) if !self.request.use_state_after => timeline.snapshots.by_nid(nid).await?,
            _ => Arc::clone(&draft.now.snapshot),
        };
        let mut events: Vec<Arc<Stored>> = if draft.is_whole() {
            self.whole_state(&start).await?
        } else {
            let first_pos = draft.events.first().map_or(i64::MAX, |first| first.pos);
            let mut newest: BTreeMap<i64, i64> = BTreeMap::new();
            for row in &draft.changes {
                if self.request.use_state_after
                    || draft.hides_state
                    || row.pos < first_pos
                    || Some(row.change.cause_nid) != row.change.event_nid
                {
                    match row.change.event_nid {
                        Some(event_nid) => drop(newest.insert(row.change.state_key_nid, event_nid)),
                        None => drop(newest.remove(&row.change.state_key_nid)),
                    }
                }
            }
            let nids: Vec<i64> =
                newest.into_values().filter(|nid| self.request.use_state_after || !shown.contains(nid)).collect();
            let found = timeline.events.by_nids(&nids).await?;
            nids.iter().filter_map(|nid| found.get(nid).cloned()).collect()
        };
        if filter.is_lazy() {
            events.extend(self.senders(draft, &start, &events).await?);
        }
        events.retain(|e| filter.state.wants(&e.pdu.kind, e.pdu.sender.as_str(), e.pdu.content.get()));
        let shown: Vec<Shown> = events.into_iter().map(Shown::from).collect();
        let options = Options { room_id: RoomIdShown::No, bundles: false };
        Ok(Events { events: self.sync.from.view.render(&self.reader(), &shown, options).await? })
    }

    /// All of a state, members apart when they come lazily.
    async fn whole_state(&self, start: &Snapshot) -> Result<Vec<Arc<Stored>>> {
        let timeline = &self.sync.from.timeline;
        if !self.request.filter.room.is_lazy() {
            return timeline.state_events(start).await;
        }
        let nids: Vec<i64> = start.state.iter().map(|(key, _)| signed(key.0)).collect();
        let names = self.sync.cx.numbers.state_key_names(&nids).await?;
        let own = self.request.user.user_id.as_str();
        let wanted: Vec<i64> = start
            .state
            .iter()
            .filter(|(key, _)| {
                names.get(&signed(key.0)).is_some_and(|(kind, key)| &**kind != kind::MEMBER || &**key == own)
            })
            .map(|(_, event)| signed(event.0))
            .collect();
        let found = timeline.events.by_nids(&wanted).await?;
        Ok(wanted.iter().filter_map(|nid| found.get(nid).cloned()).collect())
    }

    /// The members who sent what is shown, as far as this device does not know them.
    async fn senders(&self, draft: &Draft, start: &Snapshot, known: &[Arc<Stored>]) -> Result<Vec<Arc<Stored>>> {
        let mut senders: Vec<String> = draft.events.iter().map(|e| e.event.pdu.sender.to_string()).collect();
        senders.sort_unstable();
        senders.dedup();
        senders.retain(|sender| !known.iter().any(|e| e.pdu.is_state(kind::MEMBER, sender)));
        if !self.request.filter.room.state.include_redundant_members && !draft.is_whole() {
            senders = self.entry.unknown_members(self.device, draft.now.nid, senders);
        } else {
            self.entry.unknown_members(self.device, draft.now.nid, senders.clone());
        }
        let mut nids = Vec::with_capacity(senders.len());
        for sender in &senders {
            if let Some(key) = self.sync.cx.numbers.state_key_if_known(kind::MEMBER, sender).await?
                && let Some(event) = start.state.get(StateKeyNumber(u64::try_from(key).unwrap_or_default()))
            {
                nids.push(signed(event.0));
            }
        }
        let found = self.sync.from.timeline.events.by_nids(&nids).await?;
        Ok(nids.iter().filter_map(|nid| found.get(nid).cloned()).collect())
    }

    /// A room with nothing new in its timeline, for what else is new about it.
    pub(super) async fn quiet_room(&self, now: &RoomNow) -> Result<Joined> {
        let unread = unread::count(&self.sync.cx, &self.sync.from.push_rules, self.request.user.nid, &[now]).await?;
        let mut joined = Joined::default();
        self.put_counts(&mut joined, unread.get(&now.nid)).await?;
        Ok(joined)
    }

    async fn put_counts(&self, joined: &mut Joined, unread: Option<&unread::Unread>) -> Result<()> {
        let Some(unread) = unread else { return Ok(()) };
        if !self.request.filter.room.timeline.unread_thread_notifications {
            joined.unread_notifications = unread.all();
            return Ok(());
        }
        joined.unread_notifications = unread.main;
        let roots: Vec<i64> = unread.threads.keys().copied().collect();
        let roots = self.sync.from.timeline.events.by_nids(&roots).await?;
        for (root, counts) in &unread.threads {
            if let Some(root) = roots.get(root) {
                joined.unread_thread_notifications.insert(root.pdu.event_id.to_string(), *counts);
            }
        }
        Ok(())
    }

    /// Whom rooms without a name are called by.
    async fn heroes(&self, drafts: &[Draft]) -> Result<HashMap<i64, Vec<String>>> {
        let asked: Vec<i64> = drafts
            .iter()
            .filter(|d| d.is_whole() || d.events.iter().any(|e| e.event.pdu.kind == kind::MEMBER))
            .filter(|d| d.now.facts.name.is_none() && d.now.facts.canonical_alias.is_none())
            .map(|d| d.now.nid)
            .collect();
        let mut heroes: HashMap<i64, Vec<String>> = HashMap::new();
        if asked.is_empty() {
            return Ok(heroes);
        }
        let mut tx = self.sync.cx.store.read().await?;
        let rows = members::heroes(&mut tx, &asked, self.request.user.nid, HEROES_MAX).await?;
        drop(tx);
        let nids: Vec<i64> = rows.iter().map(|row| row.1).collect();
        let names = self.sync.cx.numbers.user_names(&nids).await?;
        for (room_nid, user_nid) in rows {
            if let Some(name) = names.get(&user_nid) {
                heroes.entry(room_nid).or_default().push(name.to_string());
            }
        }
        Ok(heroes)
    }
}

/// Whether the events shown leave anything of the state unsaid.
fn needs_changes(draft: &Draft, use_state_after: bool) -> bool {
    let changes_state = |e: &Arc<Recent>| e.flags & flags::STATE_CHANGES != 0;
    draft.limited
        || draft.hides_state
        || draft.events.iter().any(|e| changes_state(e) && (use_state_after || e.flags & flags::LOCAL == 0))
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
