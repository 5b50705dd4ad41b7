//! Finding rooms by name: aliases, and the list of public rooms.
//!
//! Aliases belong to this server, not to the room: no event tells of them but `m.room.canonical_alias`, which a room's own powers
//! guard. Aliases and lists of other servers come through [`RemoteDirectory`].
//!
//! Source: Client-Server API, "Room aliases", "Published room directory".

pub mod networks;

use std::{fmt, str::FromStr, sync::Arc};

use futures_util::future::BoxFuture;
use room::{build::Draft, event::kind};
use ruma::{OwnedRoomAliasId, OwnedRoomId, OwnedServerName, RoomAliasId, RoomId, ServerName};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::to_raw_value};
use storage::{aliases, network_rooms, rooms};

use self::networks::Network;
use crate::{
    Context, Error, Result,
    accounts::User,
    appservices::Appservices,
    error::Code,
    reading::Reading,
    timeline::{Timeline, now::RoomNow},
};

/// Rooms of one page of the list when a client does not say how many.
const PAGE_LEN: usize = 100;
/// Rooms of one page of the list at most.
const PAGE_LEN_MAX: usize = 500;
/// Rooms compared with a search term before a page ends early.
const ROOMS_COMPARED_MAX: usize = 20_000;
/// Rooms read at a time.
const BATCH_LEN: i64 = 500;
/// Servers named with an alias.
const SERVERS_MAX: usize = 50;

/// Other servers' aliases and lists. The federation implements it.
pub trait RemoteDirectory: fmt::Debug + Send + Sync {
    /// The room an alias of another server stands for, and servers that are in it.
    fn resolve<'a>(&'a self, alias: &'a RoomAliasId) -> BoxFuture<'a, Result<(OwnedRoomId, Vec<OwnedServerName>)>>;

    /// A page of another server's list.
    fn public_rooms<'a>(&'a self, server: &'a ServerName, query: &'a Query) -> BoxFuture<'a, Result<Page>>;
}

/// Which public rooms somebody wants to see.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Where the page begins, as the list's own server wrote it.
    pub since: Option<String>,
    /// How many rooms.
    pub limit: Option<usize>,
    /// Words to be found in a room's name, topic or alias, in whatever letters.
    pub term: Option<String>,
    /// Only rooms of these types; `None` among them stands for rooms without one. Empty: all.
    pub kinds: Vec<Option<String>>,
    /// Whose list.
    pub network: Network,
}

/// A public room, as the specification writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicRoom {
    /// Its id.
    pub room_id: OwnedRoomId,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// Its main alias.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canonical_alias: Option<String>,
    /// Its picture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avatar_url: Option<String>,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room_type: Option<String>,
    /// Who may join.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join_rule: Option<String>,
    /// Joined members.
    pub num_joined_members: i64,
    /// Whether guests may join.
    pub guest_can_join: bool,
    /// Whether anybody may read it.
    pub world_readable: bool,
}

/// A page of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// The rooms, the largest first.
    pub chunk: Vec<PublicRoom>,
    /// Where the next page begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_batch: Option<String>,
    /// Where the page before begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prev_batch: Option<String>,
    /// About how many rooms there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_room_count_estimate: Option<i64>,
}

/// A place in the list, and the way on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Since {
    rank: rooms::Rank,
    is_upward: bool,
}

impl fmt::Display for Since {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = if self.is_upward { 'u' } else { 'd' };
        write!(f, "{way}{}_{}", self.rank.0, self.rank.1)
    }
}

impl FromStr for Since {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parsed = || {
            let (is_upward, rest) = match text.strip_prefix('u') {
                Some(rest) => (true, rest),
                None => (false, text.strip_prefix('d')?),
            };
            let (count, nid) = rest.split_once('_')?;
            Some(Self { rank: (count.parse().ok()?, nid.parse().ok()?), is_upward })
        };
        parsed().ok_or_else(|| Error::InvalidParam("since is not a token of this server".to_owned()))
    }
}

/// Aliases and public rooms. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Directory {
    cx: Context,
    timeline: Timeline,
    reading: Reading,
    remote: Arc<dyn RemoteDirectory>,
    appservices: Appservices,
}

impl Directory {
    /// From these; `remote` asks other servers.
    #[must_use]
    pub fn new(
        cx: Context,
        timeline: Timeline,
        reading: Reading,
        appservices: Appservices,
        remote: Arc<dyn RemoteDirectory>,
    ) -> Self {
        Self { cx, timeline, reading, appservices, remote }
    }

    /// The room an alias stands for, and servers that are in it.
    ///
    /// # Errors
    /// [`Error::NotFound`]; what the other server's failure was.
    pub async fn resolve(&self, alias: &RoomAliasId) -> Result<(OwnedRoomId, Vec<OwnedServerName>)> {
        if !self.cx.is_us(alias.server_name()) {
            return self.remote.resolve(alias).await;
        }
        self.of_ours(alias).await
    }

    /// As [`Directory::resolve`], for the aliases of this server alone: what other servers are told.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn of_ours(&self, alias: &RoomAliasId) -> Result<(OwnedRoomId, Vec<OwnedServerName>)> {
        if let Some(found) = self.resolve_local(alias).await? {
            return Ok(found);
        }
        // An application service may make the room this moment.
        if self.appservices.query_alias(alias).await
            && let Some(found) = self.resolve_local(alias).await?
        {
            return Ok(found);
        }
        Err(Error::NotFound("room alias"))
    }

    /// The room an alias in the database stands for, and servers that are in it, ourselves first.
    async fn resolve_local(&self, alias: &RoomAliasId) -> Result<Option<(OwnedRoomId, Vec<OwnedServerName>)>> {
        let Some(found) = aliases::one(&mut self.cx.store.read().await?, alias.as_str()).await? else {
            return Ok(None);
        };
        let room_id = OwnedRoomId::try_from(found.room_id).map_err(Error::internal)?;
        let mut servers = match self.timeline.room(&room_id).await {
            Ok(now) => self.servers(&now).await?,
            // An alias may stand for a room this server has never been in.
            Err(Error::NotFound(_)) => Vec::new(),
            Err(error) => return Err(error),
        };
        if servers.is_empty() {
            servers.push(self.cx.server_name.clone());
        }
        Ok(Some((room_id, servers)))
    }

    /// Servers in a room, ourselves first, then those with the most members.
    async fn servers(&self, now: &RoomNow) -> Result<Vec<OwnedServerName>> {
        let mut counted: Vec<(i64, u32)> = now.inhabitants.servers.iter().map(|(nid, count)| (*nid, *count)).collect();
        counted.sort_unstable_by_key(|(nid, count)| (std::cmp::Reverse(*count), *nid));
        counted.truncate(SERVERS_MAX);
        let nids: Vec<i64> = counted.iter().map(|(nid, _)| *nid).collect();
        let names = self.cx.numbers.server_names(&nids).await?;
        let names = nids.iter().filter_map(|nid| names.get(nid));
        let mut servers: Vec<OwnedServerName> =
            names.filter_map(|name| OwnedServerName::try_from(&**name).ok()).collect();
        servers.sort_by_key(|name| !self.cx.is_us(name));
        Ok(servers)
    }

    /// Give a room a name of this server.
    ///
    /// # Errors
    /// [`Error::InvalidParam`] for a name of another server; `M_EXCLUSIVE`; [`Error::Forbidden`] for those outside the room;
    /// [`Code::AliasInUse`].
    pub async fn create(&self, user: &User, alias: &RoomAliasId, room_id: &RoomId) -> Result<()> {
        self.check_ours(user, alias)?;
        let access = self.reading.access(user, room_id).await?;
        if !access.is_joined() {
            return Err(Error::forbidden("only members give a room names"));
        }
        let mut tx = self.cx.store.begin().await?;
        let is_new = aliases::put(&mut tx, alias.as_str(), room_id.as_str(), user.user_id.as_str()).await?;
        tx.commit().await?;
        if is_new { Ok(()) } else { Err(Error::Specific(Code::AliasInUse, "this alias is in use".to_owned())) }
    }

    /// Take a name of this server away. Whoever made it may, who may set the room's main alias, and server administrators. If
    /// the room's state names it as an alias, it is taken out there too, as far as the user may.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Forbidden`]; [`Error::InvalidParam`] and `M_EXCLUSIVE` as [`Directory::create`].
    pub async fn delete(&self, user: &User, alias: &RoomAliasId) -> Result<()> {
        self.check_ours(user, alias)?;
        let found = aliases::one(&mut self.cx.store.read().await?, alias.as_str()).await?;
        let found = found.ok_or(Error::NotFound("room alias"))?;
        let room_id = OwnedRoomId::try_from(found.room_id).map_err(Error::internal)?;
        let now = match self.timeline.room(&room_id).await {
            Ok(now) => Some(now),
            Err(Error::NotFound(_)) => None,
            Err(error) => return Err(error),
        };
        let has_power = match &now {
            Some(now) => self.may_name(user, now).await?,
            None => false,
        };
        if found.creator != user.user_id.as_str() && !has_power && !user.is_admin {
            return Err(Error::forbidden("this alias was made by somebody else"));
        }
        let mut tx = self.cx.store.begin().await?;
        aliases::remove(&mut tx, alias.as_str()).await?;
        tx.commit().await?;
        if let Some(now) = now.filter(|_| has_power) {
            self.leave_out(user, &now, alias).await?;
        }
        Ok(())
    }

    fn check_ours(&self, user: &User, alias: &RoomAliasId) -> Result<()> {
        if !self.cx.is_us(alias.server_name()) {
            return Err(Error::InvalidParam("this alias belongs to another server".to_owned()));
        }
        if self.appservices.registry().is_alias_reserved(user.appservice.as_deref(), alias) {
            return Err(Error::Specific(Code::Exclusive, "the alias belongs to an application service".to_owned()));
        }
        Ok(())
    }

    /// Whether a user has the say over how a room is found: in it, with the power to set its main alias.
    async fn may_name(&self, user: &User, now: &RoomNow) -> Result<bool> {
        Ok(now.has_local(user.nid)
            && self.timeline.powers(now).await?.can_send_state(&user.user_id, kind::CANONICAL_ALIAS))
    }

    /// Take an alias out of the room's `m.room.canonical_alias`, if it is there.
    async fn leave_out(&self, user: &User, now: &RoomNow, alias: &RoomAliasId) -> Result<()> {
        let Some(event) = self.timeline.state_event(now, kind::CANONICAL_ALIAS, "").await? else { return Ok(()) };
        let mut content: Map<String, Value> = serde_json::from_str(event.pdu.content.get()).unwrap_or_default();
        let mut has_changed = false;
        if content.get("alias").and_then(Value::as_str) == Some(alias.as_str()) {
            content.remove("alias");
            has_changed = true;
        }
        if let Some(others) = content.get_mut("alt_aliases").and_then(Value::as_array_mut) {
            let before = others.len();
            others.retain(|other| other.as_str() != Some(alias.as_str()));
            has_changed |= others.len() != before;
            if others.is_empty() {
                content.remove("alt_aliases");
            }
        }
        if !has_changed {
            return Ok(());
        }
        let content = to_raw_value(&content).map_err(Error::internal)?;
        let draft = Draft::state(kind::CANONICAL_ALIAS, "", user.user_id.clone(), content);
        match self.timeline.append(now.nid, draft).await {
            // The alias is gone all the same.
            Ok(_) | Err(Error::Refused(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The names this server has for a room; for members, and for everybody where everybody may read.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub async fn of_room(&self, user: &User, room_id: &RoomId) -> Result<Vec<OwnedRoomAliasId>> {
        let access = self.reading.access(user, room_id).await?;
        if matches!(access.right, crate::reading::Right::Left(_)) {
            return Err(Error::forbidden("you are not in this room any more"));
        }
        let found = aliases::of_room(&mut self.cx.store.read().await?, room_id.as_str()).await?;
        Ok(found.into_iter().filter_map(|alias| OwnedRoomAliasId::try_from(alias.alias).ok()).collect())
    }

    /// Whether the list of this server has a room.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn is_listed(&self, room_id: &RoomId) -> Result<bool> {
        let nid = self.timeline.room_nid(room_id).await?;
        let facts = rooms::facts(&mut self.cx.store.read().await?, &[nid]).await?;
        Ok(facts.first().is_some_and(|facts| facts.is_public))
    }

    /// Put a room on this server's list, or take it off.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Forbidden`] for who may not set the room's main alias.
    pub async fn list(&self, user: &User, room_id: &RoomId, is_listed: bool) -> Result<()> {
        let now = self.timeline.room(room_id).await?;
        if !user.is_admin && !self.may_name(user, &now).await? {
            return Err(Error::forbidden("you have no say over how this room is found"));
        }
        let mut tx = self.cx.store.begin().await?;
        rooms::set_public(&mut tx, now.nid, is_listed).await?;
        tx.commit().await?;
        Ok(())
    }

    /// A page of a server's list, this one's if none is named.
    ///
    /// # Errors
    /// [`Error::InvalidParam`] for a token that is none; [`Error::Remote`] and what else another server's failure was.
    pub async fn public_rooms(&self, server: Option<&ServerName>, query: &Query) -> Result<Page> {
        match server.filter(|server| !self.cx.is_us(server)) {
            Some(server) => self.remote.public_rooms(server, query).await,
            None => self.own_public_rooms(query).await,
        }
    }

    /// A page of this server's list.
    ///
    /// # Errors
    /// [`Error::InvalidParam`] for a token that is none.
    pub async fn own_public_rooms(&self, query: &Query) -> Result<Page> {
        let since = query.since.as_deref().map(str::parse::<Since>).transpose()?;
        let start = since.unwrap_or(Since { rank: (i64::MAX, i64::MAX), is_upward: false });
        let len = query.limit.unwrap_or(PAGE_LEN).min(PAGE_LEN_MAX);
        let term = query.term.as_deref().map(str::to_lowercase).filter(|term| !term.is_empty());
        let mut tx = self.cx.store.read().await?;
        let instance = query.network.instance();
        let total = match instance {
            Some(instance) => network_rooms::count(&mut tx, instance).await?,
            None => rooms::public_count(&mut tx).await?,
        };
        let mut found: Vec<rooms::Facts> = Vec::new();
        let (mut from, mut compared) = (start.rank, 0);
        // One more than shown says whether there is more.
        while found.len() <= len && compared < ROOMS_COMPARED_MAX {
            let batch = match instance {
                Some(instance) => network_rooms::listed(&mut tx, instance, from, start.is_upward, BATCH_LEN).await?,
                None => rooms::public(&mut tx, from, start.is_upward, BATCH_LEN).await?,
            };
            let Some(last) = batch.last() else { break };
            from = rank(last);
            compared += batch.len();
            found.extend(batch.into_iter().filter(|facts| is_wanted(facts, term.as_deref(), &query.kinds)));
        }
        let has_more = found.len() > len;
        found.truncate(len);
        if start.is_upward {
            found.reverse();
        }
        let nids: Vec<i64> = found.iter().map(|facts| facts.room_nid).collect();
        let heads = rooms::by_nids(&mut tx, &nids).await?;
        drop(tx);
        let onward = |facts: Option<&rooms::Facts>, is_upward| {
            facts.map(|facts| Since { rank: rank(facts), is_upward }.to_string())
        };
        let has_next = if start.is_upward { since.is_some() } else { has_more };
        let has_prev = if start.is_upward { has_more } else { since.is_some() };
        let next_batch = onward(found.last().filter(|_| has_next), false);
        let prev_batch = onward(found.first().filter(|_| has_prev), true);
        let chunk = found
            .into_iter()
            .filter_map(|facts| {
                let head = heads.iter().find(|head| head.nid == facts.room_nid)?;
                Some(public_room(OwnedRoomId::try_from(head.room_id.as_str()).ok()?, facts))
            })
            .collect();
        Ok(Page { chunk, next_batch, prev_batch, total_room_count_estimate: Some(total) })
    }
}

fn rank(facts: &rooms::Facts) -> rooms::Rank {
    (facts.joined_count, facts.room_nid)
}

fn is_wanted(facts: &rooms::Facts, term: Option<&str>, kinds: &[Option<String>]) -> bool {
    let is_of_kind = kinds.is_empty() || kinds.contains(&facts.kind);
    let has_term = term.is_none_or(|term| {
        let texts = [&facts.name, &facts.topic, &facts.canonical_alias];
        texts.into_iter().flatten().any(|text| text.to_lowercase().contains(term))
    });
    is_of_kind && has_term
}

/// A room as a list shows it.
#[must_use]
pub fn public_room(room_id: OwnedRoomId, facts: rooms::Facts) -> PublicRoom {
    PublicRoom {
        room_id,
        name: facts.name,
        topic: facts.topic,
        canonical_alias: facts.canonical_alias,
        avatar_url: facts.avatar_url,
        room_type: facts.kind,
        join_rule: facts.join_rule,
        num_joined_members: facts.joined_count,
        guest_can_join: facts.guest_access.as_deref() == Some("can_join"),
        world_readable: facts.history_visibility.as_deref() == Some("world_readable"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_the_list_come_back_as_they_went() {
        for since in [Since { rank: (3, 7), is_upward: false }, Since { rank: (0, 1), is_upward: true }] {
            assert_eq!(since.to_string().parse::<Since>().unwrap(), since);
        }
        for text in ["", "u", "d1", "x1_2", "d1_", "1_2"] {
            assert!(text.parse::<Since>().is_err(), "{text}");
        }
    }
}
