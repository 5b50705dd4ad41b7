//! Asking other servers what a room is and which rooms lie below it.

use futures_util::future::BoxFuture;
use ruma::{OwnedServerName, RoomId, api::federation::space::get_hierarchy::v1 as hierarchy};

use super::client::{Client, Terms};
use crate::{
    Error, Result,
    spaces::{Neighbourhood, RemoteSpaces},
};

/// The way to other servers' spaces.
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

impl RemoteSpaces for Asking {
    fn neighbourhood<'a>(
        &'a self,
        room_id: &'a RoomId,
        via: &'a [OwnedServerName],
        suggested_only: bool,
    ) -> BoxFuture<'a, Result<Option<Neighbourhood>>> {
        Box::pin(async move {
            for server in via {
                let mut request = hierarchy::Request::new(room_id.to_owned());
                request.suggested_only = suggested_only;
                match self.client.read(server, request, Terms::BRIEF).await {
                    Ok(found) => return Ok(Some(found)),
                    // The next one may know it.
                    Err(Error::Remote { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(None)
        })
    }
}
