//! Lists of rooms that application services keep for the networks they join to this one, beside this server's own list.
//!
//! Source: Application Service API, "Application service room directory management"; Client-Server API, "Published room
//! directory" (`third_party_instance_id`).

use ruma::RoomId;
use storage::network_rooms as table;

use super::Directory;
use crate::{Error, Result, accounts::User, appservices::instance_id};

/// The longest name of a network, in bytes.
const NETWORK_BYTES_MAX: usize = 255;

/// Whose list of rooms somebody wants to see.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Network {
    /// This server's own.
    #[default]
    Own,
    /// All of them together.
    All,
    /// That of one network, by the `instance_id` it is known as.
    Instance(String),
}

impl Network {
    /// What it is called in the table; `None` for our own list, which is not in it.
    pub(super) fn instance(&self) -> Option<&str> {
        match self {
            Self::Own => None,
            Self::All => Some(table::ALL),
            Self::Instance(id) => Some(id),
        }
    }
}

impl Directory {
    /// Put a room on the list of an application service's network, or take it off.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for who is no application service; [`Error::NotFound`]; [`Error::InvalidParam`] for a name too long.
    pub async fn list_in_network(&self, user: &User, network: &str, room_id: &RoomId, is_listed: bool) -> Result<()> {
        let Some(appservice) = &user.appservice else {
            return Err(Error::forbidden("networks are application services' affair"));
        };
        if network.len() > NETWORK_BYTES_MAX {
            return Err(Error::InvalidParam(format!("a network's name has at most {NETWORK_BYTES_MAX} bytes")));
        }
        let room_nid = self.timeline.room_nid(room_id).await?;
        let mut tx = self.cx.store.begin().await?;
        table::set(&mut tx, &instance_id(appservice, network), room_nid, is_listed).await?;
        tx.commit().await?;
        Ok(())
    }
}
