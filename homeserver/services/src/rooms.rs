//! What people may ask of rooms: make them, come and go, speak, set state, read the past.
//!
//! Rules of the specification about events are the room's own (crate `room`, asked in [`crate::timeline`]); here stands what a
//! server decides beside them: who may read, what a request for a membership becomes, what a new room contains.
//!
//! | module | question it answers |
//! |---|---|
//! | `create` | what does a new room contain? |
//! | `membership` | how does somebody come in, and out again? |
//! | `invitations` | what of the rooms we are not in? |
//! | `members` | who is in a room, and in which rooms is somebody? |
//! | `throughout` | what changes in all rooms of a user at once? |
//! | `state`, `send`, `redact` | what may be said? |
//! | `sight` | who may read which event? |
//! | `history` | what was said? |
//!
//! Rooms this server is not in, and users of other servers, are reached through [`RemoteRooms`].

pub mod create;
pub mod history;
mod invitations;
pub mod members;
pub mod membership;
mod redact;
mod send;
mod sight;
mod state;
mod throughout;

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use futures_util::future::BoxFuture;
use room::build::Draft;
use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, RoomAliasId, RoomId, RoomOrAliasId, RoomVersionId, UserId};
use serde_json::value::RawValue;
use storage::{aliases, events::Place};

use crate::{
    Context, Error, Result,
    accounts::User,
    error::Code,
    ignored::Ignored,
    profiles::Profiles,
    timeline::{Timeline, now::RoomNow},
    view::{Reader, View, txn_prefix},
};

pub use self::{send::Message, state::NewState};

/// What an administrator may choose about rooms.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The version of a room whose creator names none.
    pub default_version: RoomVersionId,
}

impl Default for Settings {
    fn default() -> Self {
        Self { default_version: room::versions::DEFAULT }
    }
}

/// Somebody's wish concerning a room this server is not in.
#[derive(Debug, Clone, Copy)]
pub struct Elsewhere<'a> {
    /// Our user.
    pub user: &'a UserId,
    /// The room.
    pub room_id: &'a RoomId,
    /// Servers that may help, the likeliest first; without us.
    pub via: &'a [OwnedServerName],
    /// What the member event is to say, JSON.
    pub content: &'a RawValue,
}

/// Other servers, as far as rooms need them. The federation implements it.
pub trait RemoteRooms: fmt::Debug + Send + Sync {
    /// The room an alias of another server stands for, and servers that are in it.
    fn resolve<'a>(&'a self, alias: &'a RoomAliasId) -> BoxFuture<'a, Result<(OwnedRoomId, Vec<OwnedServerName>)>>;

    /// Join through a server that is in the room. Afterwards the room stands here with our user in it.
    fn join<'a>(&'a self, wish: Elsewhere<'a>) -> BoxFuture<'a, Result<()>>;

    /// Knock through a server that is in the room. Afterwards the knock stands in `invitations`.
    fn knock<'a>(&'a self, wish: Elsewhere<'a>) -> BoxFuture<'a, Result<()>>;

    /// Refuse an invitation, or take back a knock. The caller removes it from `invitations`.
    fn leave<'a>(&'a self, wish: Elsewhere<'a>) -> BoxFuture<'a, Result<()>>;

    /// Invite a user of another server into a room we are in: the invitation is checked, countersigned by that server, then put
    /// into the room. Returns its id.
    fn invite<'a>(&'a self, room_nid: i64, draft: Draft) -> BoxFuture<'a, Result<OwnedEventId>>;

    /// Ask for about `limit` events of a room's history before `gap`, and put what comes into the room. True when something came.
    fn backfill<'a>(&'a self, room_nid: i64, gap: Place, limit: usize) -> BoxFuture<'a, Result<bool>>;
}

/// What application services reserve and may read.
pub trait Namespaces: fmt::Debug + Send + Sync {
    /// Whether a room is in an application service's namespaces: it may read the room without being in it.
    fn covers_room(&self, appservice: &str, room_id: &RoomId) -> bool;

    /// Whether an alias belongs to application services others than this one.
    fn is_alias_reserved(&self, appservice: Option<&str>, alias: &RoomAliasId) -> bool;

    /// Ask the application services that have an alias in their namespaces to make its room. True when one says it did.
    fn make_alias<'a>(&'a self, alias: &'a RoomAliasId) -> BoxFuture<'a, bool>;
}

/// What rooms draw on.
#[derive(Debug, Clone)]
pub struct Sources {
    /// Events of rooms.
    pub timeline: Timeline,
    /// How events are shown.
    pub view: View,
    /// What members are called.
    pub profiles: Profiles,
    /// Whom readers ignore.
    pub ignored: Ignored,
}

/// Rooms. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Rooms {
    cx: Context,
    settings: Arc<Settings>,
    timeline: Timeline,
    view: View,
    profiles: Profiles,
    ignored: Ignored,
    remote: Arc<OnceLock<Arc<dyn RemoteRooms>>>,
    namespaces: Arc<OnceLock<Arc<dyn Namespaces>>>,
}

impl Rooms {
    /// From these sources.
    ///
    /// # Errors
    /// The database's.
    pub async fn start(cx: Context, settings: Settings, from: Sources) -> Result<Self> {
        if !room::versions::can_create(&settings.default_version) {
            return Err(Error::Invalid(format!("rooms of version {} are not made here", settings.default_version)));
        }
        // Another instance may be making a room just now: it gets its claim back when it settles.
        let mut tx = cx.store.begin().await?;
        aliases::drop_claims(&mut tx).await?;
        tx.commit().await?;
        let Sources { timeline, view, profiles, ignored } = from;
        Ok(Self {
            cx,
            settings: Arc::new(settings),
            timeline,
            view,
            profiles,
            ignored,
            remote: Arc::default(),
            namespaces: Arc::default(),
        })
    }

    /// Connect the way to other servers; once, before the first request.
    pub fn connect_remote(&self, remote: Arc<dyn RemoteRooms>) {
        let _ = self.remote.set(remote);
    }

    /// Connect the application services; once, before the first request.
    pub fn connect_namespaces(&self, namespaces: Arc<dyn Namespaces>) {
        let _ = self.namespaces.set(namespaces);
    }

    /// What rooms are made like.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The room a name stands for, and servers that may know it.
    ///
    /// # Errors
    /// [`Error::NotFound`]; what the other server's failure was.
    pub async fn resolve(&self, alias: &RoomAliasId) -> Result<(OwnedRoomId, Vec<OwnedServerName>)> {
        if !self.cx.is_us(alias.server_name()) {
            return self.remote.get().ok_or(Error::NotFound("room alias"))?.resolve(alias).await;
        }
        if let Some(room_id) = self.resolve_local(alias).await? {
            return Ok((room_id, Vec::new()));
        }
        let namespaces = self.namespaces.get().ok_or(Error::NotFound("room alias"))?;
        if namespaces.make_alias(alias).await
            && let Some(room_id) = self.resolve_local(alias).await?
        {
            return Ok((room_id, Vec::new()));
        }
        Err(Error::NotFound("room alias"))
    }

    /// The room an alias of ours stands for.
    ///
    /// # Errors
    /// The database's.
    pub async fn resolve_local(&self, alias: &RoomAliasId) -> Result<Option<OwnedRoomId>> {
        let found = aliases::one(&mut self.cx.store.read().await?, alias.as_str()).await?;
        found.map(|found| OwnedRoomId::try_from(found.room_id).map_err(Error::internal)).transpose()
    }

    /// The room somebody names by id or alias, and servers that may know it.
    async fn named(&self, name: &RoomOrAliasId) -> Result<(OwnedRoomId, Vec<OwnedServerName>)> {
        match <&RoomAliasId>::try_from(name) {
            Ok(alias) => self.resolve(alias).await,
            Err(_) => Ok((OwnedRoomId::try_from(name.as_str()).map_err(Error::internal)?, Vec::new())),
        }
    }

    /// A room in which somebody wants to do something. Who is told that it does not exist learns nothing more.
    async fn room(&self, room_id: &RoomId) -> Result<Arc<RoomNow>> {
        self.timeline.room(room_id).await.map_err(|error| match error {
            Error::NotFound(_) => not_in_room(),
            error => error,
        })
    }

    /// The user as a reader of events.
    fn reader(user: &User) -> Reader {
        let txn_prefix = user.device_id.as_ref().map(|device| txn_prefix(user.nid, device.as_str()));
        Reader { user_id: user.user_id.clone(), nid: user.nid, txn_prefix }
    }

    /// Refuse an alias that belongs to application services others than the user's.
    fn check_alias_is_free(&self, user: &User, alias: &RoomAliasId) -> Result<()> {
        let is_reserved =
            self.namespaces.get().is_some_and(|all| all.is_alias_reserved(user.appservice.as_deref(), alias));
        if is_reserved {
            return Err(Error::Specific(Code::Exclusive, "the alias belongs to an application service".to_owned()));
        }
        Ok(())
    }
}

/// Whether the room's state here is its present one: we are in it, or nobody else is.
fn is_present_here(now: &RoomNow) -> bool {
    !now.inhabitants.local.is_empty() || now.inhabitants.servers.is_empty()
}

/// Refuse what suspended users may not do.
fn may_speak(user: &User) -> Result<()> {
    if user.is_suspended {
        return Err(Error::Specific(Code::UserSuspended, "this account has been suspended".to_owned()));
    }
    Ok(())
}

/// What somebody outside is told, whether the room exists or not.
fn not_in_room() -> Error {
    Error::forbidden("you are not in this room")
}
