//! A room's state: reading and setting it.
//!
//! Who has left reads the state as they left it. What is checked beyond the room's own rules: aliases must be the room's, power levels
//! must make sense, an access list must not lock this server out; and what says nothing new makes no new event.
//! Source: Client-Server API, "Getting events for a room", "Sending events to a room".

use std::sync::Arc;

use room::{build::Draft, canonical, event::kind};
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedEventId, OwnedRoomAliasId, RoomId, UserId,
    events::room::server_acl::RoomServerAclEventContent,
};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Rooms, may_speak, not_in_room};
use crate::{
    Error, Result,
    accounts::User,
    error::Code,
    timeline::{Wish, events::Stored, now::RoomNow},
};

/// State to set.
#[derive(Debug, Clone)]
pub struct NewState {
    /// The type, exactly as asked for.
    pub kind: String,
    /// The state key, exactly as asked for.
    pub state_key: String,
    /// A JSON object.
    pub content: Box<RawValue>,
    /// `origin_server_ts` an application service asks for, milliseconds since 1970.
    pub ts_ms: Option<u64>,
}

/// Fields of power levels that are one number.
const LEVELS: [&str; 7] = ["ban", "events_default", "invite", "kick", "redact", "state_default", "users_default"];

impl Rooms {
    /// All state of a room, as clients see it.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for who may not read the room.
    pub async fn state(&self, user: &User, room_id: &RoomId) -> Result<Vec<Box<RawValue>>> {
        let access = self.from.reading.access(user, room_id).await?;
        let snapshot = self.from.reading.state(&access).await?;
        let events = self.from.timeline.state_events(&snapshot).await?;
        events.iter().map(|event| self.from.view.plain(event, room::event::RoomIdShown::Yes)).collect()
    }

    /// One state event.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for who may not read the room; [`Error::NotFound`] without such state.
    pub async fn state_event(
        &self,
        user: &User,
        room_id: &RoomId,
        event_kind: &str,
        state_key: &str,
    ) -> Result<Arc<Stored>> {
        let access = self.from.reading.access(user, room_id).await?;
        let snapshot = self.from.reading.state(&access).await?;
        let event = self.from.timeline.state_event_in(&snapshot, event_kind, state_key).await?;
        event.ok_or(Error::NotFound("state"))
    }

    /// Set state. Returns the event's id: that of the event already there when it says the same.
    ///
    /// # Errors
    /// [`Error::Refused`]; `M_BAD_ALIAS`; [`Error::Invalid`]; [`Error::InvalidParam`].
    pub async fn set_state(&self, user: &User, room_id: &RoomId, new: NewState) -> Result<OwnedEventId> {
        let NewState { kind: event_kind, state_key, content, ts_ms } = new;
        if event_kind == kind::MEMBER {
            let wrong = |_| Error::Invalid("a membership's state key is a user id".to_owned());
            let target = <&UserId>::try_from(state_key.as_str()).map_err(wrong)?;
            let content = serde_json::from_str(content.get())
                .map_err(|_| Error::Invalid("the content is not an object".to_owned()))?;
            return self.put_member(user, room_id, target, content).await;
        }
        may_speak(user)?;
        if event_kind == kind::CREATE {
            return Err(Error::Invalid("a room is created only once".to_owned()));
        }
        let now = self.room(room_id).await?;
        if !now.has_local(user.nid) {
            return Err(not_in_room());
        }
        let said = canonical::parse(content.get().as_bytes()).map_err(|e| Error::Invalid(e.to_string()))?;
        let before = self.from.timeline.state_event(&now, &event_kind, &state_key).await?;
        if let Some(before) = &before
            && before.pdu.sender == user.user_id
            && canonical::parse(before.pdu.content.get().as_bytes()).is_ok_and(|before| before == said)
        {
            return Ok(before.pdu.event_id.clone());
        }
        if state_key.is_empty() {
            match event_kind.as_str() {
                kind::CANONICAL_ALIAS => self.check_aliases(&now, &content, before.as_deref()).await?,
                kind::POWER_LEVELS => self.check_power_levels(&now, &said).await?,
                kind::SERVER_ACL => self.check_server_acl(&content)?,
                _ => {}
            }
        }
        let draft = Draft::state(event_kind, state_key, user.user_id.clone(), content);
        let wish = Wish { draft, txn: None, ts: ts_ms.filter(|_| user.appservice.is_some()) };
        Ok(self.from.timeline.append(now.nid, wish).await?.event_id)
    }

    /// New aliases among a room's names must be names of this room. Those it named before may have lost their room meanwhile.
    async fn check_aliases(&self, now: &RoomNow, content: &RawValue, before: Option<&Stored>) -> Result<()> {
        let said = Aliases::read(content)?;
        let known = before.and_then(|event| Aliases::read(&event.pdu.content).ok()).unwrap_or_default();
        for alias in said.all() {
            if known.all().any(|known| known == alias) {
                continue;
            }
            let alias = OwnedRoomAliasId::try_from(alias.as_str())
                .map_err(|_| Error::InvalidParam("an alias looks like #name:server".to_owned()))?;
            let is_ours = match self.from.directory.resolve(&alias).await {
                Ok((room_id, _)) => room_id == now.room_id,
                Err(Error::NotFound(_) | Error::Remote { .. }) => false,
                Err(error) => return Err(error),
            };
            if !is_ours {
                return Err(Error::Specific(Code::BadAlias, "the alias is not one of this room's".to_owned()));
            }
        }
        Ok(())
    }

    async fn check_power_levels(&self, now: &RoomNow, said: &CanonicalJsonObject) -> Result<()> {
        let wrong = |what: &str| Error::Invalid(format!("{what} must be an integer"));
        for field in LEVELS {
            if said.get(field).is_some_and(|level| !matches!(level, CanonicalJsonValue::Integer(_))) {
                return Err(wrong(field));
            }
        }
        for field in ["events", "notifications", "users"] {
            match said.get(field) {
                Some(CanonicalJsonValue::Object(levels))
                    if levels.values().any(|level| !matches!(level, CanonicalJsonValue::Integer(_))) =>
                {
                    return Err(wrong(&format!("each entry of {field}")));
                }
                None | Some(CanonicalJsonValue::Object(_)) => {}
                Some(_) => return Err(Error::Invalid(format!("{field} must be an object"))),
            }
        }
        let Some(CanonicalJsonValue::Object(users)) = said.get("users") else { return Ok(()) };
        if users.keys().any(|user| <&UserId>::try_from(user.as_str()).is_err()) {
            return Err(Error::Invalid("users must be named by their ids".to_owned()));
        }
        if now.rules.authorization.explicitly_privilege_room_creators {
            let powers = self.from.timeline.powers(now).await?;
            if powers.creators().iter().any(|creator| users.contains_key(creator.as_str())) {
                return Err(Error::Invalid("creators of a room have no number as their power".to_owned()));
            }
        }
        Ok(())
    }

    /// An access list that shuts this server out could never be changed again from here.
    fn check_server_acl(&self, content: &RawValue) -> Result<()> {
        let said: RoomServerAclEventContent = serde_json::from_str(content.get())
            .map_err(|_| Error::Invalid("this is no access list of servers".to_owned()))?;
        if said.is_allowed(&self.cx.server_name) {
            return Ok(());
        }
        Err(Error::InvalidParam("this access list would shut out your own server".to_owned()))
    }
}

/// The names in a canonical alias event.
#[derive(Default, Deserialize)]
struct Aliases {
    #[serde(default)]
    alias: Option<String>,
    #[serde(default)]
    alt_aliases: Vec<String>,
}

impl Aliases {
    fn read(content: &RawValue) -> Result<Self> {
        serde_json::from_str(content.get()).map_err(|_| Error::Invalid("aliases are strings".to_owned()))
    }

    fn all(&self) -> impl Iterator<Item = &String> {
        self.alias.iter().filter(|alias| !alias.is_empty()).chain(&self.alt_aliases)
    }
}
