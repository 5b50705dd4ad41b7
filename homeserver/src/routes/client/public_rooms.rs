//! `/_matrix/client/v3/publicRooms`

use axum::{
    Json,
    response::{IntoResponse as _, Response},
};
use ruma::{
    api::client::directory::{get_public_rooms::v3 as get_all, get_public_rooms_filtered::v3 as get_some},
    directory::RoomNetwork,
};
use services::{
    Services,
    directory::{Query, networks::Network},
};

use crate::routes::call::{Call, Reply};

/// `GET`: a page of a server's list of public rooms.
///
/// Spec: Client-Server API, "Published room directory".
pub async fn get(services: Services, call: Call<get_all::Request>) -> Reply<Response> {
    let get_all::Request { limit, since, server, .. } = call.request;
    let query = Query { since, limit: limit.map(len), ..Query::default() };
    Ok(Json(services.directory.public_rooms(server.as_deref(), &query).await?).into_response())
}

/// `POST`: the same, of rooms in which something is found.
pub async fn post(services: Services, call: Call<get_some::Request>) -> Reply<Response> {
    let get_some::Request { limit, since, server, filter, room_network, .. } = call.request;
    let query = Query {
        since,
        limit: limit.map(len),
        term: filter.generic_search_term,
        kinds: filter.room_types.iter().map(|kind| kind.as_str().map(str::to_owned)).collect(),
        network: match room_network {
            RoomNetwork::All => Network::All,
            RoomNetwork::ThirdParty(instance) => Network::Instance(instance),
            _ => Network::Own,
        },
    };
    Ok(Json(services.directory.public_rooms(server.as_deref(), &query).await?).into_response())
}

fn len(limit: ruma::UInt) -> usize {
    usize::try_from(u64::from(limit)).unwrap_or(usize::MAX)
}
