//! What a room is, for somebody who may not be in it: summaries, and the tree of rooms below a space.
//!
//! A tree is walked depth first, each room once, from this server's own knowledge where it takes part in a room, else by asking a
//! server that the space names ([`RemoteSpaces`]). Every room is judged for the one who asks ([`Spaces::may_know`]).
//!
//! A page's token counts the rooms given so far: the next page walks the tree again and passes over them. Rooms are in memory, the
//! walk is short ([`ROOMS_WALKED_MAX`]), and nothing is kept between requests.
//!
//! Source: Client-Server API, "Discovering rooms within spaces", "Room summaries".

use std::{
    collections::{HashMap, HashSet},
    fmt,
    str::FromStr,
    sync::Arc,
};

use futures_util::future::BoxFuture;
use room::{
    auth::facts,
    event::{Pdu, kind},
};
use ruma::{OwnedRoomId, OwnedServerName, RoomId, ServerName, UserId, events::room::member::MembershipState};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use crate::{
    Context, Error, Result,
    accounts::User,
    directory::{PublicRoom, public_room},
    timeline::{Timeline, effects::membership_word, now::RoomNow},
};

/// Rooms of one page when a client does not say how many.
const PAGE_LEN: usize = 50;
/// Rooms of one page at most.
const PAGE_LEN_MAX: usize = 100;
/// How deep a tree is followed.
const DEPTH_MAX: u64 = 10;
/// Rooms of one tree at most.
const ROOMS_WALKED_MAX: usize = 1_000;
/// Children of one space at most.
const CHILDREN_MAX: usize = 500;
/// Servers asked for one room.
const SERVERS_ASKED_MAX: usize = 3;
/// The longest `order` of a child that counts, in characters.
const ORDER_LEN_MAX: usize = 50;

/// What a room is, as the specification writes it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Summary {
    /// What the list of public rooms shows too.
    #[serde(flatten)]
    pub room: PublicRoom,
    /// Rooms whose members a restricted join rule admits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_room_ids: Vec<OwnedRoomId>,
    /// The algorithm messages are encrypted with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<String>,
    /// The room's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room_version: Option<String>,
}

/// A room of a tree.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Branch {
    /// What it is.
    #[serde(flatten)]
    pub summary: Summary,
    /// Its `m.space.child` events, stripped, with their time; empty for what is no space.
    #[serde(default)]
    pub children_state: Vec<Box<RawValue>>,
}

/// A room and the rooms just below it, as servers tell each other.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Neighbourhood {
    /// The room.
    pub room: Branch,
    /// Its children, as far as the server that asks may know them.
    pub children: Vec<Branch>,
    /// Children it may not know.
    #[serde(default)]
    pub inaccessible_children: Vec<OwnedRoomId>,
}

/// Asks other servers about rooms. The federation implements it.
pub trait RemoteSpaces: fmt::Debug + Send + Sync {
    /// A room this server is not in, and the rooms below it, from one of these servers; `None` when none of them tells.
    fn neighbourhood<'a>(
        &'a self,
        room_id: &'a RoomId,
        via: &'a [OwnedServerName],
        suggested_only: bool,
    ) -> BoxFuture<'a, Result<Option<Neighbourhood>>>;
}

/// Which part of a tree somebody wants.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Where the page begins.
    pub from: Option<String>,
    /// How many rooms.
    pub limit: Option<usize>,
    /// How far below the space.
    pub max_depth: Option<u64>,
    /// Only children that their space suggests.
    pub suggested_only: bool,
}

/// A page of a tree.
#[derive(Debug, Serialize)]
pub struct Tree {
    rooms: Vec<Branch>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_batch: Option<String>,
}

/// Rooms given so far, and what the tree was walked with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    given: usize,
    max_depth: u64,
    suggested_only: bool,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "h{}_{}_{}", self.given, self.max_depth, u8::from(self.suggested_only))
    }
}

impl FromStr for Place {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parsed = || {
            let mut parts = text.strip_prefix('h')?.split('_');
            let (given, max_depth) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
            let suggested_only = match parts.next()? {
                "0" => false,
                "1" => true,
                _ => return None,
            };
            Some(Self { given, max_depth, suggested_only })
        };
        parsed().ok_or_else(|| Error::InvalidParam("from is not a token of this server".to_owned()))
    }
}

/// A space's pointer to a child.
#[derive(Debug, Clone)]
struct Pointer {
    room_id: OwnedRoomId,
    via: Vec<OwnedServerName>,
    order: Option<String>,
    ts: u64,
    is_suggested: bool,
    stripped: Box<RawValue>,
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
enum Asker<'a> {
    User(&'a User),
    Nobody,
    Server(&'a ServerName),
}

/// Summaries and trees. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Spaces {
    cx: Context,
    timeline: Timeline,
    remote: Arc<dyn RemoteSpaces>,
}

impl Spaces {
    /// On `timeline`; `remote` asks other servers.
    #[must_use]
    pub fn new(cx: Context, timeline: Timeline, remote: Arc<dyn RemoteSpaces>) -> Self {
        Self { cx, timeline, remote }
    }

    /// What a room is, and the user's membership in it (`None` for those without an account). `via`: servers that may know it.
    ///
    /// # Errors
    /// [`Error::NotFound`] also when the user may not know the room.
    pub async fn summary(
        &self,
        user: Option<&User>,
        room_id: &RoomId,
        via: &[OwnedServerName],
    ) -> Result<(Summary, Option<MembershipState>)> {
        let asker = user.map_or(Asker::Nobody, Asker::User);
        if let Some(now) = self.here(room_id).await? {
            if !self.may_know(asker, &now).await? {
                return Err(Error::NotFound("room"));
            }
            let membership = match user {
                Some(user) => Some(self.membership(&now, &user.user_id).await?),
                None => None,
            };
            return Ok((summary(&now), membership));
        }
        let found = self.elsewhere(room_id, via, false).await?.map(|found| found.room.summary);
        let found = found.filter(|found| found.room.room_id == *room_id).ok_or(Error::NotFound("room"))?;
        if !self.may_know_summary(asker, &found).await? {
            return Err(Error::NotFound("room"));
        }
        Ok((found, user.map(|_| MembershipState::Leave)))
    }

    /// A page of the tree of rooms below a space, the space itself first.
    ///
    /// # Errors
    /// [`Error::Forbidden`] when the user may not know the space; [`Error::InvalidParam`] for a token that is none, or when depth or
    /// filter changed on the way.
    pub async fn tree(&self, user: &User, room_id: &RoomId, query: &Query) -> Result<Tree> {
        let max_depth = query.max_depth.unwrap_or(DEPTH_MAX).min(DEPTH_MAX);
        let start = Place { given: 0, max_depth, suggested_only: query.suggested_only };
        let from = query.from.as_deref().map_or(Ok(start), str::parse::<Place>)?;
        if (from.max_depth, from.suggested_only) != (max_depth, query.suggested_only) {
            let words = "suggested_only and max_depth cannot change on paginated requests";
            return Err(Error::InvalidParam(words.to_owned()));
        }
        let len = match query.limit {
            Some(0) => return Err(Error::InvalidParam("limit must be greater than zero".to_owned())),
            Some(limit) => limit.min(PAGE_LEN_MAX),
            None => PAGE_LEN,
        };
        // One more than shown says whether there is more.
        let end = from.given.saturating_add(len);
        let mut rooms = self.walk(user, room_id, &from, end.saturating_add(1)).await?;
        let has_more = rooms.len() > end;
        rooms.truncate(end);
        let given = rooms.len();
        rooms.drain(..from.given.min(given));
        let next_batch = has_more.then(|| Place { given, ..from }.to_string());
        Ok(Tree { rooms, next_batch })
    }

    /// The first rooms of a tree, at most `count`.
    async fn walk(&self, user: &User, root: &RoomId, place: &Place, count: usize) -> Result<Vec<Branch>> {
        let mut rooms = Vec::new();
        let mut seen: HashSet<OwnedRoomId> = HashSet::new();
        // What another server told of rooms just below one it told of.
        let mut told: HashMap<OwnedRoomId, Branch> = HashMap::new();
        // The rooms still to be looked at, the next one last.
        let mut left = vec![(root.to_owned(), Vec::new(), 0)];
        let count = count.min(ROOMS_WALKED_MAX);
        let mut walked = 0;
        while let Some((room_id, via, depth)) = left.pop() {
            if rooms.len() >= count || walked >= ROOMS_WALKED_MAX {
                break;
            }
            if !seen.insert(room_id.clone()) {
                continue;
            }
            walked += 1;
            let found = self.branch(user, &room_id, &via, place.suggested_only, &mut told).await?;
            let Some(branch) = found else {
                if depth == 0 {
                    return Err(Error::forbidden("you may not see this room"));
                }
                continue;
            };
            if depth < place.max_depth {
                let children = pointers(&branch.children_state);
                left.extend(children.into_iter().rev().map(|child| (child.room_id, child.via, depth + 1)));
            }
            rooms.push(branch);
        }
        Ok(rooms)
    }

    /// One room of a tree, if the user may know it.
    async fn branch(
        &self,
        user: &User,
        room_id: &RoomId,
        via: &[OwnedServerName],
        suggested_only: bool,
        told: &mut HashMap<OwnedRoomId, Branch>,
    ) -> Result<Option<Branch>> {
        if let Some(now) = self.here(room_id).await? {
            if !self.may_know(Asker::User(user), &now).await? {
                return Ok(None);
            }
            return Ok(Some(self.branch_of(&now, suggested_only).await?));
        }
        let branch = match told.remove(room_id) {
            // A space whose children are not told yet has to be asked for itself.
            Some(branch) if branch.children_state.is_empty() => branch,
            _ => {
                let Some(found) = self.elsewhere(room_id, via, suggested_only).await? else { return Ok(None) };
                for child in found.children.into_iter().take(CHILDREN_MAX) {
                    told.insert(child.summary.room.room_id.clone(), child);
                }
                found.room
            }
        };
        let is_it = branch.summary.room.room_id == room_id;
        if !is_it || !self.may_know_summary(Asker::User(user), &branch.summary).await? {
            return Ok(None);
        }
        let children = pointers(&branch.children_state).into_iter().filter(|c| c.is_suggested || !suggested_only);
        let children_state = children.map(|child| child.stripped).collect();
        Ok(Some(Branch { children_state, ..branch }))
    }

    /// A room and the rooms just below it, for another server.
    ///
    /// # Errors
    /// [`Error::NotFound`] also when the server may not know the room.
    pub async fn for_server(
        &self,
        server: &ServerName,
        room_id: &RoomId,
        suggested_only: bool,
    ) -> Result<Neighbourhood> {
        let asker = Asker::Server(server);
        let now = self.here(room_id).await?.ok_or(Error::NotFound("room"))?;
        if !self.may_know(asker, &now).await? {
            return Err(Error::NotFound("room"));
        }
        let room = self.branch_of(&now, suggested_only).await?;
        let (mut children, mut inaccessible_children) = (Vec::new(), Vec::new());
        for child in pointers(&room.children_state) {
            // What we do not know ourselves the other server may find out.
            let Some(now) = self.here(&child.room_id).await? else { continue };
            if self.may_know(asker, &now).await? {
                children.push(self.branch_of(&now, suggested_only).await?);
            } else {
                inaccessible_children.push(child.room_id);
            }
        }
        Ok(Neighbourhood { room, children, inaccessible_children })
    }

    async fn branch_of(&self, now: &RoomNow, suggested_only: bool) -> Result<Branch> {
        let mut children_state = Vec::new();
        if now.facts.kind.as_deref() == Some("m.space") {
            let nids: Vec<i64> = now.snapshot.state.iter().filter_map(|(key, _)| i64::try_from(key.0).ok()).collect();
            let names = self.cx.numbers.state_key_names(&nids).await?;
            let wanted: Vec<i64> = nids
                .iter()
                .filter(|nid| names.get(nid).is_some_and(|(kind, _)| &**kind == kind::SPACE_CHILD))
                .filter_map(|nid| now.state_event(*nid))
                .collect();
            let events = self.timeline.events.by_nids(&wanted).await?;
            let mut children: Vec<Pointer> = events.values().filter_map(|event| pointer(&event.pdu)).collect();
            children.retain(|child| child.is_suggested || !suggested_only);
            in_order(&mut children);
            children_state.extend(children.into_iter().take(CHILDREN_MAX).map(|child| child.stripped));
        }
        Ok(Branch { summary: summary(now), children_state })
    }

    /// The room, if what this server knows of it is its present.
    async fn here(&self, room_id: &RoomId) -> Result<Option<Arc<RoomNow>>> {
        match self.timeline.room(room_id).await {
            Ok(now) => {
                let takes_part = !now.inhabitants.local.is_empty() || now.inhabitants.servers.is_empty();
                Ok(Some(now).filter(|_| takes_part))
            }
            Err(Error::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What another server tells of a room; nothing when it cannot be asked or does not answer.
    async fn elsewhere(
        &self,
        room_id: &RoomId,
        via: &[OwnedServerName],
        suggested_only: bool,
    ) -> Result<Option<Neighbourhood>> {
        let mut servers: Vec<OwnedServerName> = via.iter().filter(|s| !self.cx.is_us(s)).cloned().collect();
        if servers.is_empty() {
            servers.extend(room_id.server_name().filter(|s| !self.cx.is_us(s)).map(ToOwned::to_owned));
        }
        servers.truncate(SERVERS_ASKED_MAX);
        if servers.is_empty() {
            return Ok(None);
        }
        match self.remote.neighbourhood(room_id, &servers, suggested_only).await {
            Err(Error::Remote { .. } | Error::NotFound(_)) => Ok(None),
            found => found,
        }
    }

    async fn membership(&self, now: &RoomNow, user: &UserId) -> Result<MembershipState> {
        let member = self.timeline.state_event(now, kind::MEMBER, user.as_str()).await?;
        Ok(facts::membership_of(member.as_ref().map(|event| &*event.pdu)))
    }

    /// Whether somebody may know of a room: they are in it or could be without asking, they could ask, or all may read it.
    async fn may_know(&self, asker: Asker<'_>, now: &RoomNow) -> Result<bool> {
        if crate::reading::is_world_readable(now) {
            return Ok(true);
        }
        let membership = match asker {
            Asker::User(user) => self.membership(now, &user.user_id).await?,
            Asker::Nobody => MembershipState::Leave,
            Asker::Server(server) => match self.cx.numbers.server(server).await {
                Ok(nid) if now.inhabitants.servers.contains_key(&nid) => MembershipState::Join,
                Ok(_) => MembershipState::Leave,
                Err(error) => return Err(error.into()),
            },
        };
        match membership_word(&membership) {
            "join" | "invite" => return Ok(true),
            "ban" => return Ok(false),
            _ => {}
        }
        match now.facts.join_rule.as_deref() {
            Some("public" | "knock" | "knock_restricted") => Ok(true),
            Some("restricted") => self.is_admitted(asker, &allowed_rooms(now)).await,
            _ => Ok(false),
        }
    }

    /// As [`Spaces::may_know`], for a room that another server told of.
    async fn may_know_summary(&self, asker: Asker<'_>, summary: &Summary) -> Result<bool> {
        if summary.room.world_readable {
            return Ok(true);
        }
        match summary.room.join_rule.as_deref() {
            // Without a word about it the rule is the one of the specification's older answers.
            None | Some("public" | "knock" | "knock_restricted") => Ok(true),
            Some("restricted") => self.is_admitted(asker, &summary.allowed_room_ids).await,
            Some(_) => match asker {
                Asker::User(user) => self.is_invited_from_outside(user, &summary.room.room_id).await,
                _ => Ok(false),
            },
        }
    }

    async fn is_invited_from_outside(&self, user: &User, room_id: &RoomId) -> Result<bool> {
        let mut tx = self.cx.store.read().await?;
        let found = storage::invitations::one(&mut tx, user.nid, room_id.as_str()).await?;
        Ok(found.is_some_and(|invitation| invitation.membership == "invite"))
    }

    /// Whether somebody is in one of the rooms whose members a restricted room admits.
    async fn is_admitted(&self, asker: Asker<'_>, allowed: &[OwnedRoomId]) -> Result<bool> {
        for room_id in allowed {
            let now = match self.timeline.room(room_id).await {
                Ok(now) => now,
                Err(Error::NotFound(_)) => continue,
                Err(error) => return Err(error),
            };
            let is_in = match asker {
                Asker::User(user) => now.has_local(user.nid),
                Asker::Nobody => false,
                Asker::Server(server) => {
                    let nid = self.cx.numbers.server(server).await?;
                    now.inhabitants.servers.contains_key(&nid)
                }
            };
            if is_in {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn allowed_rooms(now: &RoomNow) -> Vec<OwnedRoomId> {
    let rooms = now.facts.allowed_rooms.as_deref().and_then(|rooms| serde_json::from_str(rooms).ok());
    rooms.unwrap_or_default()
}

fn summary(now: &RoomNow) -> Summary {
    let is_restricted = matches!(now.facts.join_rule.as_deref(), Some("restricted" | "knock_restricted"));
    Summary {
        room: public_room(now.room_id.clone(), storage::rooms::Facts::clone(&now.facts)),
        allowed_room_ids: if is_restricted { allowed_rooms(now) } else { Vec::new() },
        encryption: now.facts.encryption.clone(),
        room_version: Some(now.version.to_string()),
    }
}

/// What points to a child, if it does: without servers to join through it does not.
fn pointer(pdu: &Pdu) -> Option<Pointer> {
    #[derive(Serialize)]
    struct Stripped<'a> {
        r#type: &'a str,
        state_key: &'a str,
        sender: &'a str,
        content: &'a RawValue,
        origin_server_ts: u64,
    }
    let state_key = pdu.state_key.as_deref()?;
    let stripped = to_raw_value(&Stripped {
        r#type: kind::SPACE_CHILD,
        state_key,
        sender: pdu.sender.as_str(),
        content: &pdu.content,
        origin_server_ts: pdu.origin_server_ts_ms(),
    });
    read_pointer(stripped.ok()?)
}

fn read_pointer(stripped: Box<RawValue>) -> Option<Pointer> {
    #[derive(Deserialize)]
    struct Child<'a> {
        r#type: String,
        state_key: OwnedRoomId,
        #[serde(borrow)]
        content: &'a RawValue,
        origin_server_ts: u64,
    }
    let child: Child<'_> = serde_json::from_str(stripped.get()).ok()?;
    let via: Vec<String> = facts::field(child.content, "via")?;
    let via: Vec<OwnedServerName> = via.into_iter().filter_map(|server| server.try_into().ok()).collect();
    if child.r#type != kind::SPACE_CHILD || via.is_empty() {
        return None;
    }
    let is_valid_order = |order: &String| {
        order.chars().count() <= ORDER_LEN_MAX && order.chars().all(|c| ('\x20'..='\x7e').contains(&c))
    };
    Some(Pointer {
        room_id: child.state_key,
        via,
        order: facts::field::<String>(child.content, "order").filter(is_valid_order),
        ts: child.origin_server_ts,
        is_suggested: facts::field(child.content, "suggested").unwrap_or(false),
        stripped,
    })
}

fn pointers(children_state: &[Box<RawValue>]) -> Vec<Pointer> {
    let mut children: Vec<Pointer> =
        children_state.iter().take(CHILDREN_MAX).filter_map(|child| read_pointer(child.clone())).collect();
    in_order(&mut children);
    children
}

/// The specification's order: by `order`, those without one last; then by time, then by room id.
fn in_order(children: &mut [Pointer]) {
    children.sort_by(|a, b| {
        let key = |child: &Pointer| (child.order.is_none(), child.order.clone(), child.ts, child.room_id.clone());
        key(a).cmp(&key(b))
    });
}
