//! What people may ask of rooms: make them, come and go, speak, set state, read the past.
//!
//! Rules of the specification about events are the room's own (crate `room`, asked in [`crate::timeline`]); here stands what a
//! server decides beside them: who may read, what a request for a membership becomes, what a new room contains.
//!
//! | module | question it answers |
//! |---|---|
//! | `create` | what does a new room contain? |
//! | `membership` | how does somebody come in, and out again? |
//! | `members` | who is in a room, and in which rooms is somebody? |
//! | `throughout` | what changes in all rooms of a user at once? |
//! | `upgrade` | how does a room of another version take its place? |
//! | `state`, `send`, `redact` | what may be said? |
//! | `history` | what was said? |
//!
//! Who may read is said by [`crate::reading`]; rooms this server is not in are entered through [`crate::joining`].

pub mod create;
pub mod history;
pub mod initial;
pub mod members;
pub mod membership;
mod redact;
mod send;
mod state;
mod throughout;
mod upgrade;

use std::sync::Arc;

use ruma::{OwnedRoomId, OwnedServerName, RoomAliasId, RoomId, RoomOrAliasId, RoomVersionId};
use storage::aliases;

use crate::{
    Context, Error, Result,
    account_data::AccountData,
    accounts::User,
    appservices::Appservices,
    directory::Directory,
    error::Code,
    incoming::Incoming,
    joining::Joining,
    profiles::Profiles,
    push::Push,
    reading::Reading,
    timeline::{Timeline, now::RoomNow},
    view::View,
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

/// What rooms draw on.
#[derive(Debug, Clone)]
pub struct Sources {
    /// Events of rooms.
    pub timeline: Timeline,
    /// How events are shown.
    pub view: View,
    /// Who may read what.
    pub reading: Reading,
    /// What members are called.
    pub profiles: Profiles,
    /// What belongs to application services.
    pub appservices: Appservices,
    /// Rooms of other servers.
    pub joining: Joining,
    /// The past of rooms, from other servers.
    pub incoming: Incoming,
    /// What rooms are called.
    pub directory: Directory,
    /// What users keep about rooms.
    pub account_data: AccountData,
    /// What users want to be told of rooms.
    pub push: Push,
}

/// Rooms. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Rooms {
    cx: Context,
    settings: Arc<Settings>,
    from: Sources,
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
        Ok(Self { cx, settings: Arc::new(settings), from })
    }

    /// What rooms are made like.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The room somebody names by id or alias, and servers that may know it, those that they name first.
    async fn named(
        &self,
        name: &RoomOrAliasId,
        via: &[OwnedServerName],
    ) -> Result<(OwnedRoomId, Vec<OwnedServerName>)> {
        let (room_id, servers) = match <&RoomAliasId>::try_from(name) {
            Ok(alias) => self.from.directory.resolve(alias).await?,
            Err(_) => (OwnedRoomId::try_from(name.as_str()).map_err(Error::internal)?, Vec::new()),
        };
        Ok((room_id, via.iter().cloned().chain(servers).collect()))
    }

    /// A room in which somebody wants to do something. Who is told that it does not exist learns nothing more.
    async fn room(&self, room_id: &RoomId) -> Result<Arc<RoomNow>> {
        self.from.timeline.room(room_id).await.map_err(|error| match error {
            Error::NotFound(_) => not_in_room(),
            error => error,
        })
    }

    /// Refuse an alias that belongs to application services others than the user's.
    fn check_alias_is_free(&self, user: &User, alias: &RoomAliasId) -> Result<()> {
        if self.from.appservices.registry().is_alias_reserved(user.appservice.as_deref(), alias) {
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
