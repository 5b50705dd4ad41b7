//! Room keys that clients keep with us, encrypted with a key we do not have.
//!
//! A user has one current backup, the latest; older ones can be read and deleted, not written.
//!
//! Source: Client-Server API, "Server-side key backups".

use std::collections::BTreeMap;

use ruma::OwnedRoomId;
use serde::Deserialize;
use serde_json::{Map, Value, value::RawValue};
pub use storage::key_backups::Part;
use storage::{
    Tx,
    key_backups::{self, BackedUpKey},
    locks,
};

use crate::{Context, Error, Result, accounts::User, error::Code};

/// `auth_data` of a backup.
const AUTH_DATA_BYTES_MAX: usize = 64 << 10;
/// One key.
const KEY_BYTES_MAX: usize = 64 << 10;
/// A session's id, or an algorithm's name.
const NAME_BYTES_MAX: usize = 255;

/// A backup and what the client said about it.
#[derive(Debug, Clone)]
pub struct Backup {
    /// Its number.
    pub version: String,
    /// Its algorithm.
    pub algorithm: String,
    /// What the algorithm needs to be told.
    pub auth_data: Box<RawValue>,
    /// State of its keys.
    pub state: State,
}

/// The state of a backup's keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Differs after each change.
    pub etag: String,
    /// Keys in it.
    pub count: u64,
}

/// What a client says of a backup it makes or changes.
#[derive(Debug, Deserialize)]
pub struct Description {
    /// Its algorithm.
    pub algorithm: String,
    /// What the algorithm needs to be told.
    pub auth_data: Box<RawValue>,
    /// Its number, where it is repeated.
    pub version: Option<String>,
}

/// Keys by room and by session.
pub type RoomKeys = BTreeMap<OwnedRoomId, BTreeMap<String, Box<RawValue>>>;

/// What of a key decides which of two is better.
#[derive(Deserialize)]
struct Entry {
    first_message_index: u32,
    forwarded_count: u32,
    is_verified: bool,
    #[expect(dead_code, reason = "must be there, and an object")]
    session_data: Map<String, Value>,
}

/// Key backups. Cheap to clone.
#[derive(Debug, Clone)]
pub struct KeyBackup {
    cx: Context,
}

impl KeyBackup {
    /// On `cx`.
    #[must_use]
    pub fn new(cx: Context) -> Self {
        Self { cx }
    }

    /// Begin a new backup, which becomes the current one. Returns its number.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::TooLarge`].
    pub async fn create(&self, user: &User, description: &Description) -> Result<String> {
        check(description)?;
        let mut tx = self.cx.store.begin().await?;
        locks::user(&mut tx, user.nid).await?;
        let auth_data = description.auth_data.get();
        let version = key_backups::create(&mut tx, user.nid, &description.algorithm, auth_data).await?;
        tx.commit().await?;
        Ok(version.to_string())
    }

    /// The backup of this number, or the current one.
    ///
    /// # Errors
    /// [`Error::NotFound`]
    pub async fn get(&self, user: &User, version: Option<&str>) -> Result<Backup> {
        let mut tx = self.cx.store.read().await?;
        let found = match version {
            Some(version) => existing(&mut tx, user.nid, version).await?,
            None => key_backups::latest(&mut tx, user.nid).await?.ok_or(Error::NotFound("a current backup"))?,
        };
        Ok(Backup {
            version: found.version.to_string(),
            algorithm: found.algorithm,
            auth_data: RawValue::from_string(found.auth_data).map_err(Error::internal)?,
            state: state((found.etag, found.count)),
        })
    }

    /// Change what the algorithm is told; the algorithm itself cannot change.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::InvalidParam`] when algorithm or number differ.
    pub async fn update(&self, user: &User, version: &str, description: &Description) -> Result<()> {
        check(description)?;
        if description.version.as_deref().is_some_and(|given| given != version) {
            return Err(Error::InvalidParam("the version in the body is not that of the path".into()));
        }
        let mut tx = self.cx.store.begin().await?;
        locks::user(&mut tx, user.nid).await?;
        let found = existing(&mut tx, user.nid, version).await?;
        if found.algorithm != description.algorithm {
            return Err(Error::InvalidParam("a backup's algorithm cannot change".into()));
        }
        key_backups::set_auth_data(&mut tx, user.nid, found.version, description.auth_data.get()).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Delete a backup and its keys; one that was deleted before stays so.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there never was such a backup.
    pub async fn delete(&self, user: &User, version: &str) -> Result<()> {
        let number = number(version)?;
        let mut tx = self.cx.store.begin().await?;
        locks::user(&mut tx, user.nid).await?;
        key_backups::by_version(&mut tx, user.nid, number).await?.ok_or(Error::NotFound("the backup"))?;
        key_backups::delete(&mut tx, user.nid, number).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Add keys to the current backup. Where it has a better key of the same session, that one stays.
    ///
    /// # Errors
    /// `M_WRONG_ROOM_KEYS_VERSION` when the backup is not the current one; [`Error::NotFound`] when it does not exist;
    /// [`Error::Invalid`], [`Error::TooLarge`] for a key; then none was added.
    pub async fn put_keys(&self, user: &User, version: &str, rooms: &RoomKeys) -> Result<State> {
        let mut keys = Vec::new();
        for (room_id, sessions) in rooms {
            for (session_id, raw) in sessions {
                keys.push(entry(room_id.as_str(), session_id, raw)?);
            }
        }
        let mut tx = self.cx.store.begin().await?;
        locks::user(&mut tx, user.nid).await?;
        let found = existing(&mut tx, user.nid, version).await?;
        let current = key_backups::latest(&mut tx, user.nid).await?.map_or(found.version, |latest| latest.version);
        if current != found.version {
            return Err(Error::Specific(Code::WrongRoomKeysVersion, current.to_string()));
        }
        let (new, is_changed) = key_backups::put(&mut tx, user.nid, found.version, &keys).await?;
        let mut counted = (found.etag, found.count);
        if is_changed {
            counted = key_backups::count_change(&mut tx, user.nid, found.version, new).await?;
        }
        tx.commit().await?;
        Ok(state(counted))
    }

    /// Keys of a backup.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the backup does not exist, or the one session asked for.
    pub async fn keys(&self, user: &User, version: &str, part: Part<'_>) -> Result<RoomKeys> {
        let mut tx = self.cx.store.read().await?;
        let found = existing(&mut tx, user.nid, version).await?;
        let keys = key_backups::keys(&mut tx, user.nid, found.version, part).await?;
        drop(tx);
        if keys.is_empty() && matches!(part, Part::Session(..)) {
            return Err(Error::NotFound("the key"));
        }
        let mut rooms = RoomKeys::new();
        for key in keys {
            let room_id = OwnedRoomId::try_from(key.room_id).map_err(Error::internal)?;
            let body = RawValue::from_string(key.body).map_err(Error::internal)?;
            rooms.entry(room_id).or_default().insert(key.session_id, body);
        }
        Ok(rooms)
    }

    /// Delete keys of a backup.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the backup does not exist.
    pub async fn delete_keys(&self, user: &User, version: &str, part: Part<'_>) -> Result<State> {
        let mut tx = self.cx.store.begin().await?;
        locks::user(&mut tx, user.nid).await?;
        let found = existing(&mut tx, user.nid, version).await?;
        let removed = key_backups::remove(&mut tx, user.nid, found.version, part).await?;
        let mut counted = (found.etag, found.count);
        if removed > 0 {
            let fewer = -i64::try_from(removed).unwrap_or(i64::MAX);
            counted = key_backups::count_change(&mut tx, user.nid, found.version, fewer).await?;
        }
        tx.commit().await?;
        Ok(state(counted))
    }
}

fn check(description: &Description) -> Result<()> {
    if description.algorithm.len() > NAME_BYTES_MAX || description.auth_data.get().len() > AUTH_DATA_BYTES_MAX {
        return Err(Error::TooLarge(format!("auth_data has at most {AUTH_DATA_BYTES_MAX} bytes")));
    }
    if !description.auth_data.get().starts_with('{') {
        return Err(Error::invalid("auth_data must be an object"));
    }
    Ok(())
}

fn entry(room_id: &str, session_id: &str, raw: &RawValue) -> Result<BackedUpKey> {
    if raw.get().len() > KEY_BYTES_MAX || session_id.len() > NAME_BYTES_MAX {
        return Err(Error::TooLarge(format!("a key has at most {KEY_BYTES_MAX} bytes")));
    }
    let entry: Entry = serde_json::from_str(raw.get()).map_err(|error| Error::invalid(error.to_string()))?;
    Ok(BackedUpKey {
        room_id: room_id.to_owned(),
        session_id: session_id.to_owned(),
        first_message_index: entry.first_message_index.into(),
        forwarded_count: entry.forwarded_count.into(),
        is_verified: entry.is_verified,
        body: raw.get().to_owned(),
    })
}

async fn existing(tx: &mut Tx, user_nid: i64, version: &str) -> Result<key_backups::Version> {
    let found = key_backups::by_version(tx, user_nid, number(version)?).await?;
    found.filter(|found| !found.is_deleted).ok_or(Error::NotFound("the backup"))
}

/// A version as we number them; any other text names no backup.
fn number(version: &str) -> Result<i64> {
    version.parse().map_err(|_| Error::NotFound("the backup"))
}

fn state((etag, count): (i64, i64)) -> State {
    State { etag: etag.to_string(), count: u64::try_from(count).unwrap_or(0) }
}
