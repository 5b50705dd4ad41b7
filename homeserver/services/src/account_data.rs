//! What a user's clients keep with us for all of them: global and per room, tags among it.
//!
//! An empty content means deleted (MSC3391): clients that had the data see it once more, empty, and nobody after.
//! `m.fully_read` and `m.push_rules` are written by their own services, never here.
//!
//! Source: Client-Server API, "Client Config", "Room Tagging".

use ruma::{RoomId, UserId};
use serde_json::{Map, Value, value::RawValue};
use storage::{account_data, locks, rooms};

use crate::{Context, Error, Result, accounts::User, error::Code, notify::Change};

/// One piece of account data.
const CONTENT_BYTES_MAX: usize = 256 << 10;
/// An event type.
const KIND_BYTES_MAX: usize = 255;
/// A tag's name. The specification's limit.
const TAG_BYTES_MAX: usize = 255;
/// Event types that clients may read and not write.
const MANAGED: [&str; 2] = ["m.fully_read", "m.push_rules"];
const TAG: &str = "m.tag";

/// Account data. Cheap to clone.
#[derive(Debug, Clone)]
pub struct AccountData {
    cx: Context,
}

impl AccountData {
    /// On `cx`.
    #[must_use]
    pub fn new(cx: Context) -> Self {
        Self { cx }
    }

    /// The caller's account data of this type, global or of a room.
    ///
    /// # Errors
    /// [`Error::Forbidden`] when it is another user's; [`Error::NotFound`]
    pub async fn get(&self, user: &User, owner: &UserId, room: Option<&RoomId>, kind: &str) -> Result<Box<RawValue>> {
        user.must_be(owner)?;
        let room_nid = self.room_nid(room).await?;
        let mut tx = self.cx.store.read().await?;
        let body = account_data::one(&mut tx, user.nid, room_nid, kind).await?.filter(|body| body != "{}");
        RawValue::from_string(body.ok_or(Error::NotFound("account data"))?).map_err(Error::internal)
    }

    /// Set the caller's account data of this type. An empty object deletes it.
    ///
    /// # Errors
    /// [`Error::Forbidden`] when it is another user's; `M_BAD_JSON` (405) for a type the server manages; [`Error::Invalid`] when the
    /// content is no object; [`Error::TooLarge`]; [`Error::NotFound`] for a room we do not know.
    pub async fn put(
        &self,
        user: &User,
        owner: &UserId,
        room: Option<&RoomId>,
        kind: &str,
        content: &RawValue,
    ) -> Result<()> {
        user.must_be(owner)?;
        must_be_free(kind)?;
        if kind.len() > KIND_BYTES_MAX {
            return Err(Error::InvalidParam(format!("an event type has at most {KIND_BYTES_MAX} bytes")));
        }
        let content: Map<String, Value> =
            serde_json::from_str(content.get()).map_err(|_| Error::invalid("the content must be a JSON object"))?;
        let room_nid = self.room_nid(room).await?;
        self.store(user.nid, room_nid, kind, &content).await
    }

    /// Delete the caller's account data of this type. Deleting what is not there changes nothing.
    ///
    /// # Errors
    /// As [`AccountData::put`].
    pub async fn delete(&self, user: &User, owner: &UserId, room: Option<&RoomId>, kind: &str) -> Result<()> {
        user.must_be(owner)?;
        must_be_free(kind)?;
        let room_nid = self.room_nid(room).await?;
        let mut tx = self.cx.store.begin().await?;
        if account_data::one(&mut tx, user.nid, room_nid, kind).await?.is_none_or(|body| body == "{}") {
            return Ok(tx.rollback().await?);
        }
        account_data::put(&mut tx, user.nid, room_nid, kind, "{}").await?;
        self.publish(tx, user.nid).await
    }

    /// The caller's tags of a room: name to tag.
    ///
    /// # Errors
    /// [`Error::Forbidden`] when they are another user's; [`Error::NotFound`] for a room we do not know.
    pub async fn tags(&self, user: &User, owner: &UserId, room: &RoomId) -> Result<Map<String, Value>> {
        user.must_be(owner)?;
        let room_nid = self.room_nid(Some(room)).await?;
        let mut tx = self.cx.store.read().await?;
        Ok(tags_in(account_data::one(&mut tx, user.nid, room_nid, TAG).await?))
    }

    /// Put a tag on a room, or take it off (`None`). Tags set at the same time by other clients stay.
    ///
    /// # Errors
    /// As [`AccountData::tags`]; [`Error::InvalidParam`] for a name too long.
    pub async fn set_tag(
        &self,
        user: &User,
        owner: &UserId,
        room: &RoomId,
        tag: &str,
        value: Option<Value>,
    ) -> Result<()> {
        user.must_be(owner)?;
        if tag.len() > TAG_BYTES_MAX {
            return Err(Error::InvalidParam(format!("a tag's name has at most {TAG_BYTES_MAX} bytes")));
        }
        let room_nid = self.room_nid(Some(room)).await?;
        let mut tx = self.cx.store.begin().await?;
        locks::user(&mut tx, user.nid).await?;
        let mut tags = tags_in(account_data::one(&mut tx, user.nid, room_nid, TAG).await?);
        match value {
            Some(value) => drop(tags.insert(tag.to_owned(), value)),
            None => drop(tags.remove(tag)),
        }
        let body = serde_json::json!({ "tags": tags }).to_string();
        if body.len() > CONTENT_BYTES_MAX {
            return Err(Error::TooLarge(format!("a room's tags have at most {CONTENT_BYTES_MAX} bytes")));
        }
        account_data::put(&mut tx, user.nid, room_nid, TAG, &body).await?;
        self.publish(tx, user.nid).await
    }

    /// Put the tags of a room on another, where that has none.
    ///
    /// # Errors
    /// The database's.
    pub async fn carry_tags_over(&self, user: &User, from_nid: i64, to_nid: i64) -> Result<()> {
        let mut tx = self.cx.store.begin().await?;
        let known = account_data::in_rooms(&mut tx, user.nid, &[from_nid, to_nid], i64::MAX).await?;
        let tags_of = |nid| known.iter().find(|row| row.room_nid == nid && row.kind == TAG);
        match (tags_of(from_nid), tags_of(to_nid)) {
            (Some(tags), None) => account_data::put(&mut tx, user.nid, to_nid, TAG, &tags.body).await?,
            _ => return Ok(tx.rollback().await?),
        }
        self.publish(tx, user.nid).await
    }

    async fn store(&self, user_nid: i64, room_nid: i64, kind: &str, content: &Map<String, Value>) -> Result<()> {
        let body = serde_json::to_string(content).map_err(Error::internal)?;
        if body.len() > CONTENT_BYTES_MAX {
            return Err(Error::TooLarge(format!("account data of a type has at most {CONTENT_BYTES_MAX} bytes")));
        }
        let mut tx = self.cx.store.begin().await?;
        account_data::put(&mut tx, user_nid, room_nid, kind, &body).await?;
        self.publish(tx, user_nid).await
    }

    async fn publish(&self, tx: storage::Tx, user_nid: i64) -> Result<()> {
        let span = tx.commit().await?;
        self.cx.notify.publish(Change { users: vec![user_nid], ..Change::at(span) });
        Ok(())
    }

    /// 0 for global data.
    async fn room_nid(&self, room: Option<&RoomId>) -> Result<i64> {
        let Some(room) = room else { return Ok(0) };
        let mut tx = self.cx.store.read().await?;
        let head = rooms::by_id(&mut tx, room.as_str()).await?;
        Ok(head.ok_or(Error::NotFound("room"))?.nid)
    }
}

fn must_be_free(kind: &str) -> Result<()> {
    if MANAGED.contains(&kind) {
        return Err(Error::Specific(Code::ManagedByServer, format!("Cannot set {kind} through this API.")));
    }
    Ok(())
}

/// The tags of an `m.tag` content. Clients may write that content themselves, in any shape.
fn tags_in(body: Option<String>) -> Map<String, Value> {
    let content: Option<Value> = body.and_then(|body| serde_json::from_str(&body).ok());
    match content.and_then(|mut content| content.get_mut("tags").map(Value::take)) {
        Some(Value::Object(tags)) => tags,
        _ => Map::new(),
    }
}
