//! Asking other servers what a room is and which rooms lie below it.

use futures_util::future::BoxFuture;
use ruma::{OwnedServerName, RoomId, api::federation::space::get_hierarchy::v1 as hierarchy};

use super::client::{Client, Terms};
use crate::{
    Error, Result,
    spaces::{Neighbourhood, RemoteSpaces},
};

impl RemoteSpaces for Client {
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
                match self.read(server, request, Terms::BRIEF).await {
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
