//! Global profiles: what a user says about themselves everywhere, field by field.
//!
//! `displayname` and `avatar_url` also stand in memberships; carrying a change there is for the rooms, which is why
//! [`Profiles::set`] says what changed. Profiles of other servers' users come through [`RemoteProfiles`].
//!
//! Source: Client-Server API, "Profiles" (MSC4133).

use std::{collections::BTreeMap, fmt, sync::Arc};

use futures_util::future::BoxFuture;
use ruma::UserId;
use serde_json::Value;
use storage::{accounts, profiles as rows};

use crate::{Context, Error, Result, error::Code};

/// The longest name of a field, in bytes.
pub const FIELD_BYTES_MAX: usize = 255;
/// A whole profile as JSON, in bytes.
pub const PROFILE_BYTES_MAX: usize = 64 << 10;
/// The longest display name, in bytes.
pub const DISPLAY_NAME_BYTES_MAX: usize = 256;
/// The longest avatar address, in bytes.
pub const AVATAR_URL_BYTES_MAX: usize = 1000;

/// A profile: fields and their values.
pub type Profile = BTreeMap<String, Value>;

/// Asks other servers for their users' profiles.
pub trait RemoteProfiles: fmt::Debug + Send + Sync {
    /// The profile of a user of another server, or one field of it.
    fn get<'a>(&'a self, user: &'a UserId, field: Option<&'a str>) -> BoxFuture<'a, Result<Profile>>;
}

/// What a change did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// True when the user's memberships must be written again: the display name or the avatar is another now.
    pub concerns_rooms: bool,
    /// The display name after the change.
    pub display_name: Option<String>,
    /// The avatar after the change.
    pub avatar_url: Option<String>,
}

/// Profiles. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Profiles {
    cx: Context,
    remote: Arc<dyn RemoteProfiles>,
}

impl Profiles {
    /// On `cx`; `remote` asks other servers.
    #[must_use]
    pub fn new(cx: Context, remote: Arc<dyn RemoteProfiles>) -> Self {
        Self { cx, remote }
    }

    /// A user's profile, of this server or another.
    ///
    /// # Errors
    /// [`Error::NotFound`]; what the other server's failure was.
    pub async fn get(&self, user: &UserId) -> Result<Profile> {
        if self.cx.is_local(user) {
            return self.of_local(user).await;
        }
        self.remote.get(user, None).await
    }

    /// One field of a user's profile.
    ///
    /// # Errors
    /// [`Error::NotFound`] also when the field is not set.
    pub async fn field(&self, user: &UserId, field: &str) -> Result<Value> {
        let mut profile = if self.cx.is_local(user) {
            self.of_local(user).await?
        } else {
            self.remote.get(user, Some(field)).await?
        };
        profile.remove(field).ok_or(Error::NotFound("profile field"))
    }

    /// The profile of one of our own users, for clients and for other servers that ask.
    ///
    /// # Errors
    /// [`Error::NotFound`] without such a living account.
    pub async fn of_local(&self, user: &UserId) -> Result<Profile> {
        let mut tx = self.cx.store.read().await?;
        let account = accounts::by_name(&mut tx, user.as_str()).await?;
        let account = account.filter(|account| account.deactivated_ms.is_none()).ok_or(Error::NotFound("profile"))?;
        parsed(rows::of_user(&mut tx, account.user_nid).await?)
    }

    /// Display name and avatar of one of our own users, for a membership; empty without an account.
    ///
    /// # Errors
    /// The database's.
    pub async fn for_membership(&self, user_nid: i64) -> Result<(Option<String>, Option<String>)> {
        let mut tx = self.cx.store.read().await?;
        let profile = parsed(rows::of_user(&mut tx, user_nid).await?)?;
        Ok((text(&profile, "displayname"), text(&profile, "avatar_url")))
    }

    /// Set a field of one of our own users. An empty `displayname` or `avatar_url`, and null, remove it.
    ///
    /// # Errors
    /// `M_KEY_TOO_LARGE`, `M_PROFILE_TOO_LARGE`, [`Error::InvalidParam`].
    pub async fn set(&self, user_nid: i64, field: &str, value: Value) -> Result<Changed> {
        check(field, &value)?;
        let is_basic = matches!(field, "displayname" | "avatar_url");
        let removes = value.is_null() || (is_basic && value.as_str().is_some_and(str::is_empty));
        let mut tx = self.cx.store.begin().await?;
        let mut profile = parsed(rows::of_user(&mut tx, user_nid).await?)?;
        let before = profile.get(field).cloned();
        if removes {
            profile.remove(field);
            rows::delete(&mut tx, user_nid, field).await?;
        } else {
            rows::put(&mut tx, user_nid, field, &value.to_string()).await?;
            profile.insert(field.to_owned(), value);
            let len = serde_json::to_vec(&profile).map_err(Error::internal)?.len();
            if len > PROFILE_BYTES_MAX {
                let words = format!("a profile has at most {PROFILE_BYTES_MAX} bytes");
                return Err(Error::Specific(Code::ProfileTooLarge, words));
            }
        }
        tx.commit().await?;
        Ok(Changed {
            concerns_rooms: is_basic && before.as_ref() != profile.get(field),
            display_name: text(&profile, "displayname"),
            avatar_url: text(&profile, "avatar_url"),
        })
    }

    /// Remove a field of one of our own users.
    ///
    /// # Errors
    /// As [`Profiles::set`].
    pub async fn remove(&self, user_nid: i64, field: &str) -> Result<Changed> {
        self.set(user_nid, field, Value::Null).await
    }
}

/// Refuse names and values that no profile holds.
fn check(field: &str, value: &Value) -> Result<()> {
    if field.len() > FIELD_BYTES_MAX {
        let words = format!("the name of a profile field has at most {FIELD_BYTES_MAX} bytes");
        return Err(Error::Specific(Code::KeyTooLarge, words));
    }
    let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
    if field.is_empty() || !field.starts_with(|c: char| c.is_ascii_lowercase()) || !field.chars().all(is_allowed) {
        return Err(Error::InvalidParam("the name of a profile field consists of a-z, 0-9, and -_.".into()));
    }
    let bytes_max = match field {
        "displayname" => DISPLAY_NAME_BYTES_MAX,
        "avatar_url" => AVATAR_URL_BYTES_MAX,
        _ => return Ok(()),
    };
    match value {
        Value::Null => Ok(()),
        Value::String(text) if text.len() <= bytes_max => Ok(()),
        _ => Err(Error::InvalidParam(format!("{field} is a text of at most {bytes_max} bytes"))),
    }
}

fn parsed(rows: Vec<(String, String)>) -> Result<Profile> {
    rows.into_iter().map(|(field, value)| Ok((field, serde_json::from_str(&value).map_err(Error::internal)?))).collect()
}

fn text(profile: &Profile, field: &str) -> Option<String> {
    profile.get(field).and_then(Value::as_str).map(str::to_owned)
}
