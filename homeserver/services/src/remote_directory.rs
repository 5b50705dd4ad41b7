//! Asking other servers for their lists of public rooms and for their spaces, and for the rooms their aliases stand for.

use futures_util::future::BoxFuture;
use ruma::{
    OwnedRoomId, OwnedServerName, RoomAliasId, RoomId, ServerName, UInt,
    api::federation::{
        directory::get_public_rooms_filtered::v1 as public_rooms, space::get_hierarchy::v1 as hierarchy,
    },
    directory::RoomTypeFilter,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Error, Result,
    directory::{Page, Query, RemoteDirectory},
    federation::{
        client::{Client, Terms, failure},
        remote_aliases,
    },
    spaces::{Neighbourhood, RemoteSpaces},
};

/// The way to other servers' lists and spaces.
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

    async fn neighbourhood(
        &self,
        server: &ServerName,
        room_id: &RoomId,
        suggested_only: bool,
    ) -> Result<Neighbourhood> {
        let mut request = hierarchy::Request::new(room_id.to_owned());
        request.suggested_only = suggested_only;
        let answer = self.client.send(server, request, Terms::BRIEF.at_once()).await?;
        Ok(Neighbourhood {
            room: as_ours(server, &answer.room)?,
            children: as_ours(server, &answer.children)?,
            inaccessible_children: answer.inaccessible_children,
        })
    }
}

impl RemoteDirectory for Asking {
    fn resolve<'a>(&'a self, alias: &'a RoomAliasId) -> BoxFuture<'a, Result<(OwnedRoomId, Vec<OwnedServerName>)>> {
        let asking = remote_aliases::Asking::new(self.client.clone());
        Box::pin(async move { asking.resolve(alias).await })
    }

    fn public_rooms<'a>(&'a self, server: &'a ServerName, query: &'a Query) -> BoxFuture<'a, Result<Page>> {
        Box::pin(async move {
            let mut request = public_rooms::Request::new();
            request.limit = query.limit.map(|limit| UInt::new_saturating(limit as u64));
            request.since.clone_from(&query.since);
            request.filter.generic_search_term.clone_from(&query.term);
            request.filter.room_types = query.kinds.iter().cloned().map(RoomTypeFilter::from).collect();
            let answer = self.client.send(server, request, Terms::BRIEF.at_once()).await?;
            Ok(Page {
                chunk: as_ours(server, &answer.chunk)?,
                next_batch: answer.next_batch,
                prev_batch: answer.prev_batch,
                total_room_count_estimate: answer.total_room_count_estimate.map(Into::into),
            })
        })
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
                match Self::neighbourhood(self, server, room_id, suggested_only).await {
                    Ok(found) => return Ok(Some(found)),
                    Err(error @ (Error::Remote { .. } | Error::NotFound(_))) => {
                        tracing::debug!(%server, %room_id, %error, "a space is not told of");
                    }
                    Err(error) => return Err(error),
                }
            }
            Ok(None)
        })
    }
}

/// What ruma read of an answer, in our own words, which are the specification's too.
fn as_ours<T: DeserializeOwned>(server: &ServerName, read: &impl Serialize) -> Result<T> {
    let value = serde_json::to_value(read).map_err(Error::internal)?;
    serde_json::from_value(value).map_err(|error| failure(server, format!("it answers oddly: {error}")))
}
