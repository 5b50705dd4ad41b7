//! Who is in a room, and in which rooms is somebody?
//!
//! Source: Client-Server API, "Getting the joined rooms of a user", "Getting events for a room".

use std::{collections::BTreeMap, sync::Arc};

use room::{
    auth::facts,
    event::{RoomIdShown, kind},
};
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};
use serde_json::value::RawValue;
use storage::{history as rows, members, rooms, timeline};

use super::{
    Rooms,
    history::{Point, last_gap},
    membership::Face,
    not_in_room,
};
use crate::{
    Error, Result,
    accounts::User,
    reading::{Access, Right},
    timeline::{effects::membership_word, events::Stored},
};

/// Events a room begins with until somebody is in it: its create event and its creator's join.
const FIRST_EVENTS: i64 = 2;

/// Which members somebody asks for.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// At this point instead of now.
    pub at: Option<Point>,
    /// Those with this membership.
    pub membership: Option<String>,
    /// Those with another than this one. With both, either suffices.
    pub not_membership: Option<String>,
}

impl Wanted {
    fn wants(&self, membership: &str) -> bool {
        let is = self.membership.as_deref().map(|wanted| wanted == membership);
        let is_other = self.not_membership.as_deref().map(|unwanted| unwanted != membership);
        match (is, is_other) {
            (None, None) => true,
            (is, is_other) => is == Some(true) || is_other == Some(true),
        }
    }
}

impl Rooms {
    /// The rooms a user is in.
    ///
    /// # Errors
    /// The database's.
    pub async fn joined(&self, user: &User) -> Result<Vec<OwnedRoomId>> {
        let mut tx = self.cx.store.read().await?;
        let nids = members::rooms_of(&mut tx, user.nid, "join").await?;
        let heads = rooms::by_nids(&mut tx, &nids).await?;
        heads.into_iter().map(|head| OwnedRoomId::try_from(head.room_id).map_err(Error::internal)).collect()
    }

    /// Who is in a room, and what they are called there. For those who are in it themselves.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub async fn joined_members(&self, user: &User, room_id: &RoomId) -> Result<BTreeMap<OwnedUserId, Face>> {
        let access = self.from.reading.access(user, room_id).await?;
        if !matches!(access.right, Right::Joined | Right::Appservice) {
            return Err(not_in_room());
        }
        let mut joined = BTreeMap::new();
        for event in self.members_now(access.now.nid, |membership| membership == "join").await? {
            let Some(user) = event.pdu.state_key.as_deref().and_then(|key| OwnedUserId::try_from(key).ok()) else {
                continue;
            };
            let face = Face {
                display_name: facts::field(&event.pdu.content, "displayname"),
                avatar_url: facts::field(&event.pdu.content, "avatar_url"),
            };
            joined.insert(user, face);
        }
        Ok(joined)
    }

    /// Member events of a room, as clients see them.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for who may not read the room.
    pub async fn members(&self, user: &User, room_id: &RoomId, wanted: &Wanted) -> Result<Vec<Box<RawValue>>> {
        let access = self.from.reading.access(user, room_id).await?;
        let events = match (&access.right, wanted.at) {
            (_, Some(at)) => self.state_at(&access, at).await?,
            (Right::Left(_), None) => {
                let snapshot = self.from.reading.state(&access).await?;
                self.from.timeline.state_events(&snapshot).await?
            }
            (_, None) => self.members_now(access.now.nid, |membership| wanted.wants(membership)).await?,
        };
        let is_wanted =
            |event: &&Arc<Stored>| is_member(event) && wanted.wants(membership_word(&facts::membership(&event.pdu)));
        events.iter().filter(is_wanted).map(|event| self.from.view.plain(event, RoomIdShown::Yes)).collect()
    }

    /// Member events of a room's current state.
    async fn members_now(&self, room_nid: i64, wants: impl Fn(&str) -> bool) -> Result<Vec<Arc<Stored>>> {
        let rows = members::of_room(&mut self.cx.store.read().await?, room_nid).await?;
        let mut nids: Vec<i64> = rows.into_iter().filter(|m| wants(&m.membership)).map(|m| m.event_nid).collect();
        nids.sort_unstable();
        let mut events = self.from.timeline.events.by_nids(&nids).await?;
        Ok(nids.iter().filter_map(|nid| events.remove(nid)).collect())
    }

    /// The events of a room's state at a point; who left sees nothing newer than their leaving.
    async fn state_at(&self, access: &Access, at: Point) -> Result<Vec<Arc<Stored>>> {
        let now = &access.now;
        if let Point::Stream(pos) = at
            && !matches!(access.right, Right::Left(_))
        {
            // What changed since is undone.
            let changes =
                timeline::state_changes(&mut self.cx.store.read().await?, &[(now.nid, pos)], i64::MAX).await?;
            let mut entries: BTreeMap<i64, i64> = now
                .snapshot
                .state
                .iter()
                .filter_map(|(key, event)| Some((i64::try_from(key.0).ok()?, i64::try_from(event.0).ok()?)))
                .collect();
            for row in changes.into_iter().rev() {
                match row.change.prev_event_nid {
                    Some(before) => drop(entries.insert(row.change.state_key_nid, before)),
                    None => drop(entries.remove(&row.change.state_key_nid)),
                }
            }
            let nids: Vec<i64> = entries.into_values().collect();
            let mut events = self.from.timeline.events.by_nids(&nids).await?;
            return Ok(nids.iter().filter_map(|nid| events.remove(nid)).collect());
        }
        let mut gap = self.gap(now, at).await?;
        if let Some(last) = last_gap(access) {
            gap = gap.min(last);
        }
        let mut tx = self.cx.store.read().await?;
        let mut page = rows::back(&mut tx, now.nid, gap, i64::MAX, 1).await?;
        if page.is_empty() {
            // Before its first event nobody is in a room: who asks there means those it begins with, its creator.
            page = rows::forward(&mut tx, now.nid, gap, FIRST_EVENTS).await?;
        }
        drop(tx);
        let Some(newest) = page.last().and_then(|row| row.event.state_after()) else { return Ok(Vec::new()) };
        let snapshot = self.from.timeline.snapshots.by_nid(newest).await?;
        self.from.timeline.state_events(&snapshot).await
    }
}

/// Whether it is somebody's member event.
fn is_member(event: &Stored) -> bool {
    event.pdu.kind == kind::MEMBER && event.pdu.state_key.as_deref().is_some_and(|key| <&UserId>::try_from(key).is_ok())
}
