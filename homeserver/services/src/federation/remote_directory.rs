//! Asking other servers for their aliases and their lists of public rooms.

use futures_util::future::BoxFuture;
use ruma::{
    OwnedRoomId, OwnedServerName, RoomAliasId, ServerName, UInt,
    api::federation::{
        directory::{get_public_rooms::v1 as all_rooms, get_public_rooms_filtered::v1 as some_rooms},
        query::get_room_information::v1 as alias_query,
    },
    directory::{Filter, RoomTypeFilter},
};

use super::client::{Client, Terms};
use crate::{
    Error, Result,
    directory::{Page, Query, RemoteDirectory},
};

/// Servers taken from one answer.
const SERVERS_MAX: usize = 50;

impl RemoteDirectory for Client {
    fn resolve<'a>(&'a self, alias: &'a RoomAliasId) -> BoxFuture<'a, Result<(OwnedRoomId, Vec<OwnedServerName>)>> {
        Box::pin(async move {
            let request = alias_query::Request::new(alias.to_owned());
            match self.send(alias.server_name(), request, Terms::BRIEF.at_once()).await {
                Ok(mut answer) => {
                    answer.servers.truncate(SERVERS_MAX);
                    Ok((answer.room_id, answer.servers))
                }
                Err(Error::Remote { status: Some(404), .. }) => Err(Error::NotFound("room alias")),
                Err(error) => Err(error),
            }
        })
    }

    fn public_rooms<'a>(&'a self, server: &'a ServerName, query: &'a Query) -> BoxFuture<'a, Result<Page>> {
        Box::pin(async move {
            let limit = query.limit.map(|limit| UInt::try_from(limit).unwrap_or(UInt::MAX));
            if query.term.is_none() && query.kinds.is_empty() {
                let mut request = all_rooms::Request::new();
                (request.limit, request.since) = (limit, query.since.clone());
                return self.read(server, request, Terms::BRIEF.at_once()).await;
            }
            let mut request = some_rooms::Request::new();
            (request.limit, request.since) = (limit, query.since.clone());
            request.filter = Filter::new();
            request.filter.generic_search_term.clone_from(&query.term);
            request.filter.room_types = query.kinds.iter().cloned().map(RoomTypeFilter::from).collect();
            self.read(server, request, Terms::BRIEF.at_once()).await
        })
    }
}
