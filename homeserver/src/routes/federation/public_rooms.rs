//! `/_matrix/federation/v1/publicRooms`

use axum::{
    Json,
    response::{IntoResponse as _, Response},
};
use ruma::api::federation::directory::{get_public_rooms::v1 as get_all, get_public_rooms_filtered::v1 as get_some};
use services::{Services, directory::Query};

use crate::routes::call::{Call, Reply};

/// `GET`: a page of this server's list of public rooms.
///
/// Spec: Server-Server API, "Public Room Directory".
pub async fn get(services: Services, call: Call<get_all::Request>) -> Reply<Response> {
    let get_all::Request { limit, since, .. } = call.request;
    let query = Query { since, limit: limit.map(len), ..Query::default() };
    Ok(Json(services.directory.own_public_rooms(&query).await?).into_response())
}

/// `POST`: the same, of rooms in which something is found.
pub async fn post(services: Services, call: Call<get_some::Request>) -> Reply<Response> {
    let get_some::Request { limit, since, filter, .. } = call.request;
    let query = Query {
        since,
        limit: limit.map(len),
        term: filter.generic_search_term,
        kinds: filter.room_types.iter().map(|kind| kind.as_str().map(str::to_owned)).collect(),
        ..Query::default()
    };
    Ok(Json(services.directory.own_public_rooms(&query).await?).into_response())
}

fn len(limit: ruma::UInt) -> usize {
    usize::try_from(u64::from(limit)).unwrap_or(usize::MAX)
}
