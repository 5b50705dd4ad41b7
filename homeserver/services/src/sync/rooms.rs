//! The rooms of an answer: which of them, and the newest events of each. What is written of a room beside them is in
//! [`state`] and [`ephemeral`]; rooms the user is not in are in [`others`].

mod ephemeral;
mod others;
mod seen;
mod state;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use room::{auth::facts, event::kind};
use ruma::events::room::member::MembershipState;
use serde::Serialize;
use serde_json::value::RawValue;
use storage::{
    account_data::AccountData,
    members,
    timeline::{self as stream, flags},
};

use self::state::Gathered;
use super::{Answer, Events, Response, Rooms, Token, unread};
use crate::{
    Result,
    reading::Right,
    timeline::{cell::Recent, events::Stored, now::RoomNow},
    view::{Reader, txn_prefix},
};

/// Members a room without a name is called by.
const HEROES_MAX: i64 = 5;
/// Events looked through for one room when a filter drops most of them.
const LOOKED_AT_MAX: usize = 200;
/// Rooms written together: what they need is looked up at once, and held in memory until they are written.
const ROOMS_AT_ONCE: usize = 200;

/// A room the user is in.
#[derive(Debug, Default, Serialize)]
pub(super) struct Joined {
    #[serde(skip_serializing_if = "Summary::is_empty")]
    summary: Summary,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<Events>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) state_after: Option<Events>,
    #[serde(rename = "org.matrix.msc4222.state_after", skip_serializing_if = "Option::is_none")]
    unstable_state_after: Option<Events>,
    pub(super) timeline: Timeline,
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
    pub(super) state_after: Option<Events>,
    #[serde(rename = "org.matrix.msc4222.state_after", skip_serializing_if = "Option::is_none")]
    pub(super) unstable_state_after: Option<Events>,
    pub(super) timeline: Timeline,
}

/// A room the user is invited to.
#[derive(Debug, Serialize)]
pub(super) struct Invited {
    pub(super) invite_state: Events,
}

/// A room the user asked to be let into.
#[derive(Debug, Serialize)]
pub(super) struct Knocked {
    knock_state: Events,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Timeline {
    pub(super) events: Vec<Box<RawValue>>,
    limited: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) prev_batch: Option<String>,
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
    /// Whether there are events between `since` and the first of `events`, or may be.
    limited: bool,
    /// What changed in its state since, when it was asked for.
    changes: Vec<stream::StateChangeRow>,
    /// Whether something may have been said about one of `events`.
    is_spoken_about: bool,
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
            is_spoken_about: true,
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
    /// All rooms of the answer, with the account data of theirs. Returns who came and went in them.
    pub(super) async fn rooms(
        &self,
        since: Option<Token>,
        account_data: &[AccountData],
        response: &mut Response,
    ) -> Result<Moves> {
        let memberships = self.memberships(since.is_none()).await?;
        let nows = self.sync.from.timeline.now_many(&memberships.joined.iter().copied().collect::<Vec<_>>()).await?;
        let nows: BTreeMap<i64, Arc<RoomNow>> = nows
            .into_iter()
            .filter(|now| self.request.filter.room.wants_room(now.room_id.as_str()))
            .map(|now| (now.nid, now))
            .collect();
        let (drafts, moves) = self.drafts(&nows, &memberships).await?;
        let ephemeral = self.ephemeral(&nows, since).await?;
        let mut heroes = self.heroes(&drafts).await?;
        // Rooms whose timeline is quiet are there for what else is new about them.
        let mut quiet: BTreeSet<i64> = ephemeral.keys().copied().collect();
        quiet.extend(account_data.iter().map(|row| row.room_nid).filter(|nid| nows.contains_key(nid)));
        for draft in &drafts {
            quiet.remove(&draft.now.nid);
        }
        let quiet = quiet.iter().filter_map(|nid| nows.get(nid)).map(|now| &**now);
        let told: Vec<&RoomNow> = drafts.iter().map(|draft| &*draft.now).chain(quiet).collect();
        let unread = self.unread(&told).await?;
        let roots = self.thread_roots(&unread).await?;
        let join = &mut response.rooms.join;
        for drafts in drafts.chunks(ROOMS_AT_ONCE) {
            let reader = self.reader();
            let Gathered { around, of_rooms } = self.gather(&reader, drafts).await?;
            for (draft, parts) in drafts.iter().zip(&of_rooms) {
                let mut joined = self.joined(draft, &reader, parts, &around)?;
                joined.summary.heroes = heroes.remove(&draft.now.nid);
                join.insert(draft.now.room_id.to_string(), joined);
            }
        }
        for now in told {
            let joined = join.entry(now.room_id.to_string()).or_default();
            if let Some(unread) = unread.get(&now.nid) {
                self.put_counts(joined, unread, &roots);
            }
        }
        for (nid, events) in ephemeral {
            if let Some(joined) = nows.get(&nid).and_then(|now| join.get_mut(now.room_id.as_str())) {
                joined.ephemeral.events = events;
            }
        }
        Self::put_account_data(account_data, &nows, response)?;
        self.others(&memberships, since.is_none(), &mut response.rooms).await?;
        Ok(moves)
    }

    async fn unread(&self, rooms: &[&RoomNow]) -> Result<HashMap<i64, unread::Unread>> {
        let Self { sync, request, entry, until, .. } = self;
        let reader = unread::Reader { user: &request.user, entry, until: *until };
        sync.unread.count(&sync.cx, &sync.from.push_rules, &sync.from.timeline, &reader, rooms).await
    }

    async fn memberships(&self, is_first: bool) -> Result<Memberships> {
        let mut found = Memberships {
            joined: BTreeSet::new(),
            new: HashSet::new(),
            left: Vec::new(),
            invited: Vec::new(),
            knocked: Vec::new(),
        };
        let user_id = self.request.user.user_id.as_str();
        let key = match !is_first && self.entry.membership_changed_since(self.since) {
            true => self.sync.cx.numbers.state_key_if_known(kind::MEMBER, user_id).await?,
            false => None,
        };
        let (rows, changes) = match key {
            Some(key) => self.sync.watch.changed_memberships(self.entry, key, self.since, self.until).await?,
            None => (self.sync.watch.memberships(self.entry).await?, Vec::new()),
        };
        let mut changed: HashMap<i64, (i64, Option<i64>)> = HashMap::new();
        for (room_nid, pos, prev_event_nid) in changes {
            changed.entry(room_nid).or_insert((pos, prev_event_nid)).0 = pos;
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
                    draft.limited = self.may_have_more(events);
                }
            }
        }
        let filter = &self.request.filter.room.timeline;
        for draft in &mut drafts {
            self.cut(draft, &Right::Joined).await?;
        }
        // A room that is whole to the client, or whose every new event looked at is dropped, may have nothing to show.
        drafts.retain(|draft| draft.is_whole() || draft.limited || !draft.events.is_empty() || !filter.is_open());
        self.state_changes(&mut drafts).await?;
        let moves = self.moves(&drafts).await?;
        Ok((drafts, moves))
    }

    /// How many of a room's newest events are looked at: one more than shown says whether there is more.
    fn looked_at(&self) -> usize {
        let filter = &self.request.filter.room.timeline;
        if filter.is_open() { filter.timeline_len() + 1 } else { LOOKED_AT_MAX }
    }

    /// Whether there may be earlier events than these, the newest of a room: so many were asked for.
    fn may_have_more(&self, events: &[Arc<Recent>]) -> bool {
        events.len() >= self.looked_at()
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

    fn reader(&self) -> Reader {
        let user = &self.request.user;
        let txn_prefix = user.device_id.as_ref().map(|device| txn_prefix(user.nid, device.as_str()));
        Reader { user_id: user.user_id.clone(), nid: user.nid, txn_prefix }
    }

    /// The first events of threads with anything unread, when the client counts threads apart.
    async fn thread_roots(&self, unread: &HashMap<i64, unread::Unread>) -> Result<HashMap<i64, Arc<Stored>>> {
        if !self.request.filter.room.timeline.unread_thread_notifications {
            return Ok(HashMap::new());
        }
        let roots: Vec<i64> = unread.values().flat_map(|unread| unread.threads.keys().copied()).collect();
        self.sync.from.timeline.events.by_nids(&roots).await
    }

    fn put_counts(&self, joined: &mut Joined, unread: &unread::Unread, roots: &HashMap<i64, Arc<Stored>>) {
        if !self.request.filter.room.timeline.unread_thread_notifications {
            joined.unread_notifications = unread.all();
            return;
        }
        joined.unread_notifications = unread.main;
        for (root, counts) in &unread.threads {
            if let Some(root) = roots.get(root) {
                joined.unread_thread_notifications.insert(root.pdu.event_id.to_string(), *counts);
            }
        }
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

/// Whether there may be relations to one of these events, the newest of their room. What speaks about an event of ours came after
/// it, so it is among them; about another server's event it may have come before.
fn may_be_spoken_about(events: &[Arc<Recent>]) -> bool {
    let speaks = |e: &Arc<Recent>| e.event.pdu.redacts.is_some() || e.event.pdu.content.get().contains("m.relates_to");
    events.iter().any(|e| e.flags & flags::LOCAL == 0 || speaks(e))
}
