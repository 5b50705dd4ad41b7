//! Making a room: what the creator asked for, as the first events of the room, stored together.
//!
//! The order is the specification's: create, the creator's join, power levels, canonical alias, what the preset says, initial
//! state, name, topic, invitations. A later wish replaces what an earlier step would have said, so each state is set once.
//! Users of other servers are invited when the room stands.
//!
//! Source: Client-Server API, "Creation"; for version 12 also MSC4289, MSC4291.

use room::{build::Draft, event::kind, versions};
use ruma::{OwnedRoomAliasId, OwnedRoomId, OwnedUserId, RoomAliasId, RoomId, RoomVersionId, UserId, serde::JsonObject};
use serde_json::{
    Map, Value, json,
    value::{RawValue, to_raw_value},
};
use storage::{aliases, rooms};

use super::{Rooms, may_speak, membership::member_content};
use crate::{Error, Result, accounts::User, error::Code, timeline::Wish};

/// Users invited when a room is made.
pub const INVITED_MAX: usize = 200;
/// State events a creator may give.
pub const INITIAL_STATE_MAX: usize = 200;
/// The longest alias, in bytes.
pub const ALIAS_BYTES_MAX: usize = 255;
/// Letters of a room id that we make: 107 bits.
const ROOM_ID_LETTERS: usize = 18;
/// Power of a room's creator, before version 12.
pub(super) const CREATOR_POWER: i64 = 100;
/// Power to close a room of version 12: only its creators have so much without being given it.
const TOMBSTONE_POWER: i64 = 150;
/// Types of rooms in which everybody may say that they take part in a call.
const CALL_ROOM_TYPES: [&str; 2] = ["org.voicechat.voice", "org.matrix.msc3417.call"];
/// Says that somebody takes part in a call.
const CALL_MEMBER: &str = "org.matrix.msc3401.call.member";

/// What kind of room it is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// For those who are invited.
    Private,
    /// The same, and the first invited are as powerful as the creator.
    TrustedPrivate,
    /// For everybody.
    Public,
}

/// A state event the creator gives.
#[derive(Debug, Clone, serde::Deserialize)]
pub struct InitialState {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its state key.
    #[serde(default)]
    pub state_key: String,
    /// Its content, a JSON object.
    pub content: Box<RawValue>,
}

/// What the creator asks for.
#[derive(Debug, Clone, Default)]
pub struct NewRoom {
    /// Further content of the create event.
    pub creation_content: Map<String, Value>,
    /// State to begin with.
    pub initial_state: Vec<InitialState>,
    /// Who is invited.
    pub invite: Vec<OwnedUserId>,
    /// Whether the invited are told that it is a conversation between few.
    pub is_direct: bool,
    /// Name.
    pub name: Option<String>,
    /// Topic.
    pub topic: Option<String>,
    /// Local part of an alias.
    pub alias: Option<String>,
    /// Power levels other than the default.
    pub power_levels: Map<String, Value>,
    /// What kind of room.
    pub preset: Option<Preset>,
    /// Version.
    pub version: Option<RoomVersionId>,
    /// Whether the directory lists it.
    pub is_listed: bool,
}

/// A wish with everything decided that was left open.
struct Plan<'a> {
    creator: &'a User,
    new: NewRoom,
    preset: Preset,
    version: RoomVersionId,
    /// Creators have power without being named (version 12 on).
    are_creators_privileged: bool,
    alias: Option<OwnedRoomAliasId>,
    /// The creator's own member event.
    join: Box<RawValue>,
}

impl Rooms {
    /// Make a room. Returns its id.
    ///
    /// # Errors
    /// `M_UNSUPPORTED_ROOM_VERSION`, `M_ROOM_IN_USE`, `M_EXCLUSIVE`, `M_INVALID_ROOM_STATE` when the room's own rules refuse what
    /// it is to contain, [`Error::InvalidParam`]. On any error there is no room.
    pub async fn create(&self, user: &User, mut new: NewRoom) -> Result<OwnedRoomId> {
        may_speak(user)?;
        check_sizes(&new)?;
        let version = new.version.take().unwrap_or_else(|| self.settings.default_version.clone());
        if !versions::can_create(&version) {
            return Err(unsupported(&version));
        }
        let rules = versions::rules(&version).map_err(|_| unsupported(&version))?;
        let alias = new.alias.as_deref().map(|name| self.alias_named(name)).transpose()?;
        if let Some(alias) = &alias {
            self.check_alias_is_free(user, alias)?;
        }
        let preset = new.preset.unwrap_or(if new.is_listed { Preset::Public } else { Preset::Private });
        let mut plan = Plan {
            creator: user,
            preset,
            are_creators_privileged: rules.authorization.explicitly_privilege_room_creators,
            alias,
            join: raw(&member_content("join", &self.profile_of(&user.user_id).await?, Map::new()))?,
            version,
            new,
        };
        let create = plan.create_content(rules.authorization.use_room_create_sender)?;
        let create = Draft::state(kind::CREATE, "", user.user_id.clone(), create);
        let invitations = self.invitations_of(&plan).await?;
        let room_id = (!versions::room_id_is_create_hash(rules)).then(|| self.new_room_id());
        if let Some(alias) = &plan.alias {
            self.claim_alias(user, alias).await?;
        }
        let made = self.from.timeline.create(&plan.version, create, room_id, |_| plan.events(&invitations.local)).await;
        let now = match made {
            Ok(now) => now,
            Err(error) => {
                self.drop_alias_claim(plan.alias.as_deref()).await?;
                return Err(match error {
                    Error::Refused(refusal) => Error::Specific(Code::InvalidRoomState, refusal.reason),
                    error => error,
                });
            }
        };
        self.publish_room(&plan, now.nid, &now.room_id).await?;
        self.carry_over(user, &now).await;
        for (invited, content) in invitations.remote {
            let now = self.from.timeline.now(now.nid).await?;
            // The room stands: who could not be reached can be invited again.
            if let Err(error) = self.from.joining.invite(&now, &user.user_id, &invited, &content).await {
                tracing::info!(%error, room_id = %now.room_id, "an invitation into a new room was not taken");
            }
        }
        Ok(now.room_id.clone())
    }

    /// The alias of ours with this local part.
    ///
    /// # Errors
    /// [`Error::InvalidParam`].
    pub fn alias_named(&self, local_part: &str) -> Result<OwnedRoomAliasId> {
        let wrong = || Error::InvalidParam("the alias is not a name a room can have".to_owned());
        let is_odd = |c: char| c == ':' || c == '#' || c.is_control() || c.is_whitespace();
        if local_part.is_empty() || local_part.contains(is_odd) {
            return Err(wrong());
        }
        let alias = format!("#{local_part}:{}", self.cx.server_name);
        if alias.len() > ALIAS_BYTES_MAX {
            return Err(wrong());
        }
        OwnedRoomAliasId::try_from(alias).map_err(|_| wrong())
    }

    pub(super) fn new_room_id(&self) -> OwnedRoomId {
        let id = format!("!{}:{}", self.cx.randomness.letters(ROOM_ID_LETTERS), self.cx.server_name);
        OwnedRoomId::try_from(id).expect("letters before our server name are a room id")
    }

    async fn claim_alias(&self, user: &User, alias: &RoomAliasId) -> Result<()> {
        let mut tx = self.cx.store.begin().await?;
        let is_free = aliases::claim(&mut tx, alias.as_str(), user.user_id.as_str()).await?;
        tx.commit().await?;
        if is_free { Ok(()) } else { Err(Error::Specific(Code::RoomInUse, "the alias is taken".to_owned())) }
    }

    async fn drop_alias_claim(&self, alias: Option<&RoomAliasId>) -> Result<()> {
        let Some(alias) = alias else { return Ok(()) };
        let mut tx = self.cx.store.begin().await?;
        aliases::remove(&mut tx, alias.as_str()).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Give the room its alias and its place in the directory.
    async fn publish_room(&self, plan: &Plan<'_>, room_nid: i64, room_id: &RoomId) -> Result<()> {
        if plan.alias.is_none() && !plan.new.is_listed {
            return Ok(());
        }
        let mut tx = self.cx.store.begin().await?;
        if let Some(alias) = &plan.alias {
            aliases::settle(&mut tx, alias.as_str(), room_id.as_str(), plan.creator.user_id.as_str()).await?;
        }
        if plan.new.is_listed {
            rooms::set_public(&mut tx, room_nid, true).await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// The invitations a new room begins with.
    async fn invitations_of(&self, plan: &Plan<'_>) -> Result<Invitations> {
        let mut all = Invitations::default();
        for user in &plan.new.invite {
            let mut extra = Map::new();
            if plan.new.is_direct {
                extra.insert("is_direct".to_owned(), true.into());
            }
            let content = member_content("invite", &self.profile_of(user).await?, extra);
            if self.cx.is_local(user) {
                all.local.push(Draft::state(kind::MEMBER, user.as_str(), plan.creator.user_id.clone(), raw(&content)?));
            } else {
                all.remote.push((user.clone(), content.into_iter().collect()));
            }
        }
        Ok(all)
    }
}

#[derive(Default)]
struct Invitations {
    local: Vec<Draft>,
    remote: Vec<(OwnedUserId, JsonObject)>,
}

impl Plan<'_> {
    fn creator(&self) -> &UserId {
        &self.creator.user_id
    }

    /// The content of the create event; from version 12 on those who are to be as powerful as the creator stand there.
    fn create_content(&mut self, is_creator_the_sender: bool) -> Result<Box<RawValue>> {
        let mut content = std::mem::take(&mut self.new.creation_content);
        content.insert("room_version".to_owned(), self.version.as_str().into());
        content.remove("creator");
        if !is_creator_the_sender {
            content.insert("creator".to_owned(), self.creator().as_str().into());
        }
        if self.are_creators_privileged {
            let mut more: Vec<OwnedUserId> = match content.remove("additional_creators") {
                None => Vec::new(),
                Some(said) => serde_json::from_value(said)
                    .map_err(|_| Error::Invalid("additional_creators is a list of user ids".to_owned()))?,
            };
            if self.preset == Preset::TrustedPrivate {
                more.extend(self.new.invite.iter().cloned());
            }
            let mut named = Vec::with_capacity(more.len());
            for user in more {
                if user != self.creator() && !named.contains(&user) {
                    named.push(user);
                }
            }
            if !named.is_empty() {
                content.insert("additional_creators".to_owned(), json!(named));
            }
        }
        self.new.creation_content = content;
        raw(&self.new.creation_content)
    }

    /// Every event after the create event that concerns our own users.
    fn events(&self, invitations: &[Draft]) -> Vec<Wish> {
        let mut events = vec![self.state(kind::MEMBER, self.creator().as_str(), self.join.clone())];
        match self.given(kind::POWER_LEVELS) {
            Some(levels) => events.push(self.state(kind::POWER_LEVELS, "", levels.content.clone())),
            None => events.push(self.says(kind::POWER_LEVELS, &self.power_levels().into())),
        }
        events.extend(self.defaults());
        let (name, topic) = (self.new.name.as_deref(), self.new.topic.as_deref());
        for state in &self.new.initial_state {
            let is_replaced = state.state_key.is_empty()
                && (state.kind == kind::POWER_LEVELS
                    || (state.kind == kind::NAME && name.is_some())
                    || (state.kind == kind::TOPIC && topic.is_some()));
            if !is_replaced {
                events.push(self.state(&state.kind, &state.state_key, state.content.clone()));
            }
        }
        if let Some(name) = name {
            events.push(self.says(kind::NAME, &json!({ "name": name })));
        }
        if let Some(topic) = topic {
            let content = json!({ "topic": topic, "m.topic": { "m.text": [{ "body": topic }] } });
            events.push(self.says(kind::TOPIC, &content));
        }
        events.extend(invitations.iter().cloned().map(Wish::from));
        events
    }

    /// What the alias and the preset say, where initial state does not say otherwise.
    fn defaults(&self) -> Vec<Wish> {
        let is_public = self.preset == Preset::Public;
        let join_rule = if is_public { "public" } else { "invite" };
        let alias = self.alias.as_ref().map(|alias| (kind::CANONICAL_ALIAS, json!({ "alias": alias })));
        let preset = [
            (kind::JOIN_RULES, json!({ "join_rule": join_rule })),
            (kind::HISTORY_VISIBILITY, json!({ "history_visibility": "shared" })),
        ];
        // A room that says nothing of guests forbids them, as a public one is to.
        let guests = (!is_public).then(|| (kind::GUEST_ACCESS, json!({ "guest_access": "can_join" })));
        let all = alias.into_iter().chain(preset).chain(guests);
        all.filter(|(kind, _)| self.given(kind).is_none()).map(|(kind, content)| self.says(kind, &content)).collect()
    }

    /// The initial state of a type, with an empty state key.
    fn given(&self, kind: &str) -> Option<&InitialState> {
        self.new.initial_state.iter().find(|state| state.kind == kind && state.state_key.is_empty())
    }

    fn says(&self, kind: &str, content: &Value) -> Wish {
        self.state(kind, "", to_raw_value(content).expect("a JSON value is JSON"))
    }

    fn state(&self, kind: &str, state_key: &str, content: Box<RawValue>) -> Wish {
        Wish::from(Draft::state(kind, state_key, self.creator().to_owned(), content))
    }

    fn power_levels(&self) -> Map<String, Value> {
        let is_private = self.preset != Preset::Public;
        let mut users = Map::new();
        if !self.are_creators_privileged {
            users.insert(self.creator().to_string(), CREATOR_POWER.into());
            if self.preset == Preset::TrustedPrivate {
                users.extend(self.new.invite.iter().map(|user| (user.to_string(), CREATOR_POWER.into())));
            }
        }
        let tombstone = if self.are_creators_privileged { TOMBSTONE_POWER } else { CREATOR_POWER };
        let mut events = Map::new();
        for (kind, power) in [
            (kind::NAME, 50),
            (kind::AVATAR, 50),
            (kind::CANONICAL_ALIAS, 50),
            (kind::POWER_LEVELS, 100),
            (kind::HISTORY_VISIBILITY, 100),
            (kind::SERVER_ACL, 100),
            (kind::ENCRYPTION, 100),
            (kind::TOMBSTONE, tombstone),
        ] {
            events.insert(kind.to_owned(), power.into());
        }
        let room_type = self.new.creation_content.get("type").and_then(Value::as_str);
        if room_type.is_some_and(|kind| CALL_ROOM_TYPES.contains(&kind)) {
            events.insert(CALL_MEMBER.to_owned(), 0.into());
        }
        let mut levels = Map::new();
        levels.insert("users".to_owned(), users.into());
        levels.insert("events".to_owned(), events.into());
        for (field, power) in [
            ("users_default", 0),
            ("events_default", 0),
            ("state_default", 50),
            ("ban", 50),
            ("kick", 50),
            ("redact", 50),
            ("invite", if is_private { 0 } else { 50 }),
        ] {
            levels.insert(field.to_owned(), power.into());
        }
        levels.extend(self.new.power_levels.clone());
        levels
    }
}

fn check_sizes(new: &NewRoom) -> Result<()> {
    if new.invite.len() > INVITED_MAX {
        return Err(Error::InvalidParam(format!("a new room invites at most {INVITED_MAX} users")));
    }
    if new.initial_state.len() > INITIAL_STATE_MAX {
        return Err(Error::InvalidParam(format!("a new room begins with at most {INITIAL_STATE_MAX} state events")));
    }
    Ok(())
}

pub(super) fn unsupported(version: &RoomVersionId) -> Error {
    Error::Specific(Code::UnsupportedRoomVersion, format!("rooms of version {version} are not made here"))
}

fn raw(content: &Map<String, Value>) -> Result<Box<RawValue>> {
    to_raw_value(content).map_err(Error::internal)
}
