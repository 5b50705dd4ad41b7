//! A room of another version in place of an old one.
//!
//! The new room begins with what of the old room's state may be carried over, the old one ends with a tombstone; names and the place in
//! the directory go along. What users said of the old room (tags, push rules) follows them when they join the new one, also
//! when somebody made it by hand.
//!
//! Source: Client-Server API, "Room Upgrades"; for version 12 also MSC4289.

use std::sync::Arc;

use room::{
    auth::{PowerField, Powers, facts},
    build::Draft,
    event::kind,
    versions,
};
use ruma::{OwnedRoomId, OwnedUserId, RoomId, RoomVersionId};
use serde_json::{Map, Value, json, value::to_raw_value};
use storage::{aliases, rooms};

use super::{
    Rooms,
    create::{CREATOR_POWER, unsupported},
    may_speak,
    membership::member_content,
    not_in_room,
};
use crate::{
    Error, Result,
    accounts::User,
    timeline::{Wish, now::RoomNow},
};

/// State that is carried over as it is. Power levels are carried over with changes; who is in the room is not.
const CARRIED_OVER: [&str; 9] = [
    kind::JOIN_RULES,
    kind::HISTORY_VISIBILITY,
    kind::GUEST_ACCESS,
    kind::NAME,
    kind::TOPIC,
    kind::AVATAR,
    kind::CANONICAL_ALIAS,
    kind::ENCRYPTION,
    kind::SERVER_ACL,
];
/// Fields of the create event that are carried over.
const CREATE_FIELDS: [&str; 2] = ["type", "m.federate"];
/// Power to speak and invite in a room that has been replaced, unless everybody has more.
const CLOSED_POWER: i64 = 50;

impl Rooms {
    /// Replace a room by one of another version, of which `more_creators` are as powerful as the user, where the version knows
    /// such. Returns the new room.
    ///
    /// # Errors
    /// `M_UNSUPPORTED_ROOM_VERSION`; [`Error::Forbidden`] for who may not close the room; [`Error::Refused`].
    pub async fn upgrade(
        &self,
        user: &User,
        room_id: &RoomId,
        version: &RoomVersionId,
        more_creators: Vec<OwnedUserId>,
    ) -> Result<OwnedRoomId> {
        may_speak(user)?;
        if !versions::can_create(version) {
            return Err(unsupported(version));
        }
        let old = self.room(room_id).await?;
        if !old.has_local(user.nid) {
            return Err(not_in_room());
        }
        let powers = self.from.timeline.powers(&old).await?;
        if !powers.can_send_state(&user.user_id, kind::TOMBSTONE) {
            return Err(Error::forbidden("you have not the power to close this room"));
        }
        let new = self.make_successor(user, &old, &powers, version, more_creators).await?;
        self.move_names(&old, &new).await?;
        self.close(user, &old, &powers, &new.room_id).await?;
        self.carry_over(user, &new).await;
        Ok(new.room_id.clone())
    }

    async fn make_successor(
        &self,
        user: &User,
        old: &RoomNow,
        powers: &Powers,
        version: &RoomVersionId,
        more_creators: Vec<OwnedUserId>,
    ) -> Result<Arc<RoomNow>> {
        let rules = versions::rules(version).map_err(|_| unsupported(version))?;
        let has_privileged_creators = rules.authorization.explicitly_privilege_room_creators;
        let mut creators = vec![user.user_id.clone()];
        for creator in more_creators.into_iter().filter(|_| has_privileged_creators) {
            if !creators.contains(&creator) {
                creators.push(creator);
            }
        }
        let is_named_by_hash = versions::room_id_is_create_hash(rules);
        let mut content = self.create_content_of(old).await?;
        content.insert("room_version".to_owned(), version.as_str().into());
        let mut predecessor = json!({ "room_id": old.room_id });
        if let Some(last) = old.heads.first().filter(|_| !is_named_by_hash) {
            predecessor["event_id"] = last.event.event_id.as_str().into();
        }
        content.insert("predecessor".to_owned(), predecessor);
        if !rules.authorization.use_room_create_sender {
            content.insert("creator".to_owned(), user.user_id.as_str().into());
        }
        if creators.len() > 1 {
            content.insert("additional_creators".to_owned(), json!(creators[1..]));
        }
        let state = |kind: &str, state_key: &str, content: Map<String, Value>| -> Result<Draft> {
            let content = to_raw_value(&content).map_err(Error::internal)?;
            Ok(Draft::state(kind, state_key, user.user_id.clone(), content))
        };
        let create = state(kind::CREATE, "", content)?;
        let join = member_content("join", &self.profile_of(&user.user_id).await?, Map::new());
        let mut wishes = vec![Wish::from(state(kind::MEMBER, user.user_id.as_str(), join)?)];
        for carried in CARRIED_OVER {
            if let Some(event) = self.from.timeline.state_event(old, carried, "").await? {
                let draft = Draft::state(carried, "", user.user_id.clone(), event.pdu.content.clone());
                wishes.push(Wish::from(draft));
            }
        }
        // Until there are power levels the room's creator may do anything: so they come last.
        if let Some(levels) = self.from.timeline.state_event(old, kind::POWER_LEVELS, "").await? {
            let levels = serde_json::from_str(levels.pdu.content.get()).map_err(Error::internal)?;
            let levels =
                if has_privileged_creators { levels_without(levels, &creators) } else { levels_with(levels, powers) };
            wishes.push(Wish::from(state(kind::POWER_LEVELS, "", levels)?));
        }
        let room_id = (!is_named_by_hash).then(|| self.new_room_id());
        self.from.timeline.create(version, create, room_id, |_| wishes).await
    }

    /// What of the create event is carried over.
    async fn create_content_of(&self, old: &RoomNow) -> Result<Map<String, Value>> {
        let create = self.from.timeline.state_event(old, kind::CREATE, "").await?;
        let create = create.ok_or_else(|| Error::internal("a room without a create event"))?;
        let content: Map<String, Value> = serde_json::from_str(create.pdu.content.get()).map_err(Error::internal)?;
        Ok(content.into_iter().filter(|(field, _)| CREATE_FIELDS.contains(&field.as_str())).collect())
    }

    /// Aliases of ours and the place in the directory.
    async fn move_names(&self, old: &RoomNow, new: &RoomNow) -> Result<()> {
        let mut tx = self.cx.store.begin().await?;
        aliases::move_all(&mut tx, old.room_id.as_str(), new.room_id.as_str()).await?;
        if rooms::facts(&mut tx, &[old.nid]).await?.first().is_some_and(|facts| facts.is_public) {
            rooms::set_public(&mut tx, old.nid, false).await?;
            rooms::set_public(&mut tx, new.nid, true).await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// Say in the old room that it has been replaced and, as far as the user's power goes, let only few speak there.
    async fn close(&self, user: &User, old: &RoomNow, powers: &Powers, successor: &RoomId) -> Result<()> {
        let says = |kind: &str, content: &Value| {
            let content = to_raw_value(content).map_err(Error::internal)?;
            Ok::<_, Error>(Draft::state(kind, "", user.user_id.clone(), content))
        };
        let tombstone = json!({ "body": "This room has been replaced", "replacement_room": successor });
        self.from.timeline.append(old.nid, says(kind::TOMBSTONE, &tombstone)?).await?;
        let mut last = Vec::new();
        if self.from.timeline.state_event(old, kind::CANONICAL_ALIAS, "").await?.is_some() {
            last.push((kind::CANONICAL_ALIAS, json!({})));
        }
        if let Some(levels) = self.from.timeline.state_event(old, kind::POWER_LEVELS, "").await? {
            let mut levels: Map<String, Value> =
                serde_json::from_str(levels.pdu.content.get()).map_err(Error::internal)?;
            let by_default = i64::from(powers.needed(PowerField::UsersDefault));
            for (field, needed) in [("events_default", PowerField::EventsDefault), ("invite", PowerField::Invite)] {
                let closed = CLOSED_POWER.max(by_default.saturating_add(1)).max(powers.needed(needed).into());
                levels.insert(field.to_owned(), closed.into());
            }
            last.push((kind::POWER_LEVELS, Value::from(levels)));
        }
        for (kind, content) in last {
            match self.from.timeline.append(old.nid, says(kind, &content)?).await {
                Ok(_) => {}
                // The room is closed without it.
                Err(error @ Error::Refused(_)) => tracing::debug!(%error, "a replaced room keeps its {kind}"),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Let what a user said of a room's predecessor hold for the room they just joined. What fails goes to the log: they are in.
    pub(super) async fn carry_over(&self, user: &User, new: &RoomNow) {
        let carried = async {
            let Some(create) = self.from.timeline.state_event(new, kind::CREATE, "").await? else { return Ok(()) };
            let Some(old) = facts::field::<Predecessor>(&create.pdu.content, "predecessor") else { return Ok(()) };
            let old = match self.from.timeline.room(&old.room_id).await {
                Ok(old) => old,
                Err(Error::NotFound(_)) => return Ok(()),
                Err(error) => return Err(error),
            };
            if self.member(&old, &user.user_id).await?.is_none() {
                return Ok(());
            }
            self.from.account_data.carry_tags_over(user, old.nid, new.nid).await?;
            self.from.push.carry_over(user, &old.room_id, &new.room_id).await
        };
        if let Err(error) = carried.await {
            tracing::warn!(%error, room_id = %new.room_id, "what a user said of a room was not carried over");
        }
    }
}

#[derive(serde::Deserialize)]
struct Predecessor {
    room_id: OwnedRoomId,
}

/// Power levels for a version in which creators are above them.
fn levels_without(levels: Map<String, Value>, creators: &[OwnedUserId]) -> Map<String, Value> {
    let mut levels = integers(levels);
    if let Some(Value::Object(users)) = levels.get_mut("users") {
        for creator in creators {
            users.remove(creator.as_str());
        }
    }
    levels
}

/// Power levels for a version in which creators are named in them.
fn levels_with(levels: Map<String, Value>, powers: &Powers) -> Map<String, Value> {
    let mut levels = integers(levels);
    if !powers.creators_are_infinite() {
        return levels;
    }
    let maps = ["users", "events"].iter().filter_map(|field| levels.get(*field)?.as_object());
    let highest = maps.flat_map(Map::values).filter_map(Value::as_i64).fold(CREATOR_POWER, i64::max);
    let users = levels.entry("users").or_insert_with(|| json!({}));
    if let Value::Object(users) = users {
        users.extend(powers.creators().iter().map(|creator| (creator.to_string(), highest.into())));
    }
    levels
}

/// Levels written as text, which old versions allow, as numbers; what is no number is left out.
fn integers(levels: Map<String, Value>) -> Map<String, Value> {
    let number = |level: Value| match level {
        Value::Number(_) => Some(level),
        Value::String(text) => text.trim().parse::<i64>().ok().map(Value::from),
        _ => None,
    };
    let fields = levels.into_iter().filter_map(|(field, level)| {
        let level = match level {
            Value::Object(map) => {
                Value::Object(map.into_iter().filter_map(|(key, level)| Some((key, number(level)?))).collect())
            }
            level => number(level)?,
        };
        Some((field, level))
    });
    fields.collect()
}
