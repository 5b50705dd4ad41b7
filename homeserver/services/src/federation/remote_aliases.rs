//! Asking other servers for the rooms their aliases stand for.

use ruma::{OwnedRoomId, OwnedServerName, RoomAliasId, api::federation::query::get_room_information::v1 as query};

use super::client::{Client, Terms};
use crate::{Error, Result};

/// Servers taken from one answer.
const SERVERS_MAX: usize = 50;

/// The way to other servers' aliases.
#[derive(Debug, Clone)]
pub struct Asking {
    client: Client,
}

impl Asking {
    /// Over `client`.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// The room an alias of another server stands for, and servers that are in it.
    ///
    /// # Errors
    /// [`Error::NotFound`]; what the other server's failure was.
    pub async fn resolve(&self, alias: &RoomAliasId) -> Result<(OwnedRoomId, Vec<OwnedServerName>)> {
        let request = query::Request::new(alias.to_owned());
        match self.client.send(alias.server_name(), request, Terms::BRIEF.at_once()).await {
            Ok(mut answer) => {
                answer.servers.truncate(SERVERS_MAX);
                Ok((answer.room_id, answer.servers))
            }
            Err(Error::Remote { status: Some(404), .. }) => Err(Error::NotFound("room alias")),
            Err(error) => Err(error),
        }
    }
}
