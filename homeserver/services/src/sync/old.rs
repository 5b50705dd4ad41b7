//! The ways of following rooms that came before `/sync`: everything in one list, then an event stream. Few clients ask for them;
//! peekers do, for whom the specification knows no other way.
//!
//! The list is a sync from the beginning, written differently. The stream goes through positions in stretches of
//! [`POSITIONS_AT_ONCE`], so that a client that was away misses nothing and costs no more for it at a time. Tokens are those of sync.
//! Messages to devices are not delivered here: they are deleted once a device has them, and only `/sync` says that it has.
//!
//! Source: Client-Server API, "Syncing" (`GET /initialSync`, `GET /events`), "Room previews".

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use room::event::{RoomIdShown, kind};
use ruma::{RoomId, presence::PresenceState};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use storage::{invitations, rooms as table, timeline as stream};
use tokio::time::Instant;

use super::{Answer, Entry, Filter, Request, Response, Sync, TIMEOUT_MAX, Token, rooms::Moves};
use crate::{
    Error, Result,
    accounts::User,
    reading::{Access, Right, reader},
    timeline::{events::Stored, now::RoomNow},
    view::{Options, Shown},
};

/// Positions looked through at a time.
const POSITIONS_AT_ONCE: i64 = 200;
/// Stretches looked through for one answer; who was away longer goes on from its end.
const STRETCHES_MAX: usize = 50;

/// A user's rooms and what is theirs, as the specification writes it.
#[derive(Debug, Serialize)]
pub struct Overview {
    end: String,
    presence: Vec<Box<RawValue>>,
    account_data: Vec<Box<RawValue>>,
    rooms: Vec<RoomInfo>,
}

/// A room as it is, as the specification writes it.
#[derive(Debug, Default, Serialize)]
pub struct RoomInfo {
    /// Its id.
    pub room_id: String,
    /// What the user is in it; nothing for a passer-by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub membership: Option<String>,
    /// The invitation, for who has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invite: Option<Box<RawValue>>,
    /// What was said last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages: Option<Chunk>,
    /// Its state: now, or when the user left.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub state: Vec<Box<RawValue>>,
    /// `public` when the list of this server has it, else `private`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub visibility: Option<&'static str>,
    /// The user's own data about it.
    pub account_data: Vec<Box<RawValue>>,
}

/// A stretch of events.
#[derive(Debug, Serialize)]
pub struct Chunk {
    /// Where it begins; nothing when nothing is before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// Where it ends.
    pub end: String,
    /// The events, the oldest first.
    pub chunk: Vec<Box<RawValue>>,
}

/// The word for whether the list of public rooms has a room.
#[must_use]
pub fn visibility(is_listed: bool) -> &'static str {
    if is_listed { "public" } else { "private" }
}

impl Sync {
    /// All rooms of a user with their state and at most `limit` of their newest events; with those they left, if they want.
    ///
    /// # Errors
    /// The database's.
    pub async fn overview(&self, user: &User, limit: Option<u64>, with_left: bool) -> Result<Overview> {
        let mut request = request(user);
        request.filter.room.timeline.limit = limit;
        request.filter.room.include_leave = with_left;
        request.use_state_after = true;
        let Response { next_batch, account_data, presence, rooms, .. } = self.wait(&request).await?;
        let listed = self.listed(rooms.join.keys()).await?;
        let mut infos = Vec::new();
        for (room_id, joined) in rooms.join {
            let messages = Some(joined.timeline.into_chunk(&room_id, &next_batch)?);
            let visibility = Some(visibility(listed.contains(&room_id)));
            let state = within(joined.state_after.unwrap_or_default().events, &room_id)?;
            let account_data = joined.account_data.events;
            let membership = Some("join".to_owned());
            infos.push(RoomInfo { membership, messages, state, visibility, account_data, room_id, invite: None });
        }
        for (room_id, invited) in rooms.invite {
            let mut events = invited.invite_state.events.iter();
            let invite = events.rfind(|event| is_member_event(event, user.user_id.as_str()));
            let invite = invite.map(|event| with_room(event, &room_id)).transpose()?;
            infos.push(RoomInfo { room_id, membership: Some("invite".to_owned()), invite, ..RoomInfo::default() });
        }
        for (room_id, left) in rooms.leave {
            let own = left.timeline.events.iter().rfind(|event| is_member_event(event, user.user_id.as_str()));
            let membership = own.map_or_else(|| "leave".to_owned(), |event| membership(event));
            let messages = Some(left.timeline.into_chunk(&room_id, &next_batch)?);
            let state = within(left.state_after.unwrap_or_default().events, &room_id)?;
            infos.push(RoomInfo { room_id, membership: Some(membership), messages, state, ..RoomInfo::default() });
        }
        Ok(Overview { end: next_batch, presence: presence.events, account_data: account_data.events, rooms: infos })
    }

    /// Those of these rooms that the list of this server has.
    async fn listed<'a>(&self, room_ids: impl Iterator<Item = &'a String>) -> Result<HashSet<String>> {
        let mut ids: BTreeMap<i64, &String> = BTreeMap::new();
        for id in room_ids {
            let room_id = <&RoomId>::try_from(id.as_str()).map_err(Error::internal)?;
            ids.insert(self.from.timeline.room_nid(room_id).await?, id);
        }
        let nids: Vec<i64> = ids.keys().copied().collect();
        let facts = table::facts(&mut self.cx.store.read().await?, &nids).await?;
        let listed = facts.iter().filter(|facts| facts.is_public);
        Ok(listed.filter_map(|facts| ids.get(&facts.room_nid)).map(|id| (*id).clone()).collect())
    }

    /// Wait for events after `from` (now, if nowhere) for at most `timeout`: of all rooms the user is in, with who types, who has
    /// read what and who is there; or of one room that they need only be able to read.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for who may not read the room; the database's.
    pub async fn events(
        &self,
        user: &User,
        from: Option<Token>,
        timeout: Duration,
        room_id: Option<&RoomId>,
    ) -> Result<Chunk> {
        let entry = self.watch.user(user.nid);
        let deadline = Instant::now() + timeout.min(TIMEOUT_MAX);
        let now = Token {
            pos: self.cx.notify.stable(),
            typing: self.from.typing.serial(),
            presence: self.from.presence.serial(),
        };
        self.catch_up_with(from).await?;
        let start = from.unwrap_or(now);
        let (mut at, mut stretches) = (start, 0);
        loop {
            // Listen before looking: what comes in between rings.
            let (rung, told) = (entry.rung(), self.watch.told());
            tokio::pin!(rung, told);
            rung.as_mut().enable();
            told.as_mut().enable();
            let heard = self.cx.notify.stable().max(self.watch.heard());
            let until = heard.min(at.pos.saturating_add(POSITIONS_AT_ONCE)).max(at.pos);
            let (chunk, end) = match room_id {
                Some(room_id) => self.peeked(user, room_id, at, until).await?,
                None => self.followed(user, &entry, at, until).await?,
            };
            at = end;
            stretches += 1;
            // A token may also be of a database that was set back since: nothing comes before its position.
            let is_all = until >= heard;
            let is_over = if is_all { Instant::now() >= deadline } else { stretches >= STRETCHES_MAX };
            if !chunk.is_empty() || is_over {
                return Ok(Chunk { start: Some(start.to_string()), end: at.to_string(), chunk });
            }
            if is_all {
                stretches = 0;
                tokio::select! {
                    () = rung => {}
                    () = told => {}
                    () = tokio::time::sleep_until(deadline) => {}
                }
            }
        }
    }

    /// What happened in a room in `at.pos < pos <= until`, as far as the user may see it.
    async fn peeked(
        &self,
        user: &User,
        room_id: &RoomId,
        at: Token,
        until: i64,
    ) -> Result<(Vec<Box<RawValue>>, Token)> {
        let access = self.from.reading.access(user, room_id).await?;
        let end = Token { pos: until, ..at };
        if until == at.pos || (access.now.last_pos > 0 && access.now.last_pos <= at.pos) {
            return Ok((Vec::new(), end));
        }
        let mut shown = self.stretch(at.pos, until, |event| event.event.room_nid == access.now.nid).await?;
        let events = shown.iter().map(|one| Arc::clone(&one.event)).collect();
        let seen = self.from.reading.visible_nids(&access, events).await?;
        shown.retain(|one| seen.contains(&one.event.nid));
        Ok((self.from.view.render(&access.reader, &shown, OPTIONS).await?, end))
    }

    /// What happened in all rooms of a user in `at.pos < pos <= until`, and what else is new to them.
    async fn followed(
        &self,
        user: &User,
        entry: &Arc<Entry>,
        at: Token,
        until: i64,
    ) -> Result<(Vec<Box<RawValue>>, Token)> {
        let mut end = Token { pos: until, typing: self.from.typing.serial(), ..at };
        let has_presence = self.from.presence.is_on() && at.presence != self.from.presence.serial();
        if self.watch.is_quiet(entry, at.pos) && at.typing >= end.typing && !has_presence {
            return Ok((Vec::new(), end));
        }
        let memberships = self.watch.memberships(entry).await?;
        let joined: Vec<i64> = memberships.iter().filter(|m| m.membership == "join").map(|m| m.room_nid).collect();
        let nows = self.from.timeline.now_many(&joined).await?;
        let nows: BTreeMap<i64, Arc<RoomNow>> = nows.into_iter().map(|now| (now.nid, now)).collect();
        let mut chunk = Vec::new();
        if until > at.pos {
            chunk = self.in_rooms(user, &nows, at.pos, until).await?;
        }
        if entry.membership_changed_since(at.pos) {
            chunk.extend(self.invitations(user, at.pos, until).await?);
        }
        let request = request(user);
        let answer =
            Answer { sync: self, request: &request, entry, since: at.pos, until, typing: end.typing, device: "" };
        for (nid, events) in answer.ephemeral(&nows, Some(at)).await? {
            if let Some(now) = nows.get(&nid) {
                chunk.extend(within(events, now.room_id.as_str())?);
            }
        }
        let mut response = Response::default();
        answer.presence(Some(at), &Moves::default(), &mut response, &mut end).await?;
        chunk.extend(response.presence.events);
        Ok((chunk, end))
    }

    /// Events of the user's rooms, and those that say what the user is in others.
    async fn in_rooms(
        &self,
        user: &User,
        nows: &BTreeMap<i64, Arc<RoomNow>>,
        since: i64,
        until: i64,
    ) -> Result<Vec<Box<RawValue>>> {
        let own = user.user_id.as_str();
        let is_theirs =
            |one: &Shown| nows.contains_key(&one.event.room_nid) || one.event.pdu.is_state(kind::MEMBER, own);
        let mut shown = self.stretch(since, until, is_theirs).await?;
        let mut of_rooms: BTreeMap<i64, Vec<Arc<Stored>>> = BTreeMap::new();
        for one in shown.iter().filter(|one| nows.contains_key(&one.event.room_nid)) {
            of_rooms.entry(one.event.room_nid).or_default().push(Arc::clone(&one.event));
        }
        let mut seen = HashSet::new();
        for (room_nid, events) in of_rooms {
            let access = Access { now: Arc::clone(&nows[&room_nid]), reader: reader(user), right: Right::Joined };
            seen.extend(self.from.reading.visible_nids(&access, events).await?);
        }
        shown.retain(|one| !nows.contains_key(&one.event.room_nid) || seen.contains(&one.event.nid));
        self.from.view.render(&reader(user), &shown, OPTIONS).await
    }

    async fn stretch(&self, since: i64, until: i64, is_wanted: impl Fn(&Shown) -> bool) -> Result<Vec<Shown>> {
        let rows = stream::between(&mut self.cx.store.read().await?, since, until, POSITIONS_AT_ONCE).await?;
        let (txns, rows): (Vec<Option<String>>, Vec<_>) = rows.into_iter().map(|row| (row.txn, row.event)).unzip();
        let events = self.from.timeline.events.read(rows).await?;
        let shown = events.into_iter().zip(txns).map(|(event, txn)| Shown { event, txn: txn.map(Arc::from) });
        Ok(shown.filter(is_wanted).collect())
    }

    /// Invitations into rooms of other servers.
    async fn invitations(&self, user: &User, since: i64, until: i64) -> Result<Vec<Box<RawValue>>> {
        let outside = invitations::changed(&mut self.cx.store.read().await?, user.nid, since, until).await?;
        let ignored = self.from.ignored.of(user.nid).await?;
        let mut events = Vec::new();
        for invitation in outside {
            if ignored.iter().any(|ignored| ignored.as_str() == invitation.sender) {
                continue;
            }
            let state: Vec<Box<RawValue>> = serde_json::from_str(&invitation.state).map_err(Error::internal)?;
            let own = state.iter().rfind(|event| is_member_event(event, user.user_id.as_str()));
            events.extend(own.map(|event| with_room(event, &invitation.room_id)).transpose()?);
        }
        Ok(events)
    }
}

/// How events are shown: whole, but for what was said about them since.
const OPTIONS: Options = Options { room_id: RoomIdShown::Yes, bundles: false, past: true };

/// A sync from the beginning, in the name of no device.
fn request(user: &User) -> Request {
    Request {
        user: User { device_id: None, ..user.clone() },
        since: None,
        filter: Filter::default(),
        full_state: false,
        timeout: Duration::ZERO,
        use_state_after: false,
        is_unstable_state_after: false,
        set_presence: PresenceState::Online,
    }
}

impl super::rooms::Timeline {
    fn into_chunk(self, room_id: &str, end: &str) -> Result<Chunk> {
        Ok(Chunk { start: self.prev_batch, end: end.to_owned(), chunk: within(self.events, room_id)? })
    }
}

/// What of an event is looked at.
#[derive(serde::Deserialize)]
struct Glance {
    #[serde(rename = "type")]
    kind: String,
    state_key: Option<String>,
    content: Content,
}

#[derive(serde::Deserialize)]
struct Content {
    membership: Option<String>,
}

fn is_member_event(event: &RawValue, user_id: &str) -> bool {
    serde_json::from_str::<Glance>(event.get())
        .is_ok_and(|event| event.kind == kind::MEMBER && event.state_key.as_deref() == Some(user_id))
}

fn membership(event: &RawValue) -> String {
    let glance = serde_json::from_str::<Glance>(event.get());
    glance.ok().and_then(|event| event.content.membership).unwrap_or_else(|| "leave".to_owned())
}

/// Events that do not name their room, with its name.
fn within(events: Vec<Box<RawValue>>, room_id: &str) -> Result<Vec<Box<RawValue>>> {
    events.iter().map(|event| with_room(event, room_id)).collect()
}

fn with_room(event: &RawValue, room_id: &str) -> Result<Box<RawValue>> {
    let mut fields: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(event.get()).map_err(Error::internal)?;
    fields.insert("room_id".to_owned(), room_id.into());
    to_raw_value(&fields).map_err(Error::internal)
}
