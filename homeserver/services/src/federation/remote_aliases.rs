//! Asking other servers for the rooms their aliases stand for.

use futures_util::future::BoxFuture;
use ruma::{OwnedRoomId, OwnedServerName, RoomAliasId, api::federation::query::get_room_information::v1 as query};

use super::client::{Client, Terms};
use crate::{Error, Result, rooms::RemoteAliases};

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
}

impl RemoteAliases for Asking {
    fn resolve<'a>(&'a self, alias: &'a RoomAliasId) -> BoxFuture<'a, Result<(OwnedRoomId, Vec<OwnedServerName>)>> {
        Box::pin(async move {
            let request = query::Request::new(alias.to_owned());
            match self.client.send(alias.server_name(), request, Terms::BRIEF.at_once()).await {
                Ok(mut answer) => {
                    answer.servers.truncate(SERVERS_MAX);
                    Ok((answer.room_id, answer.servers))
                }
                Err(Error::Remote { status: Some(404), .. }) => Err(Error::NotFound("room alias")),
                Err(error) => Err(error),
            }
        })
    }
}
