//! `/_matrix/client/v3/directory/…`: rooms by name.

use ruma::api::client::{
    alias::{create_alias::v3 as put_alias, delete_alias::v3 as delete_alias, get_alias::v3 as get_alias},
    appservice::set_room_visibility::v3 as put_network_list,
    directory::{get_room_visibility::v3 as get_list, set_room_visibility::v3 as put_list},
    room::Visibility,
};
use services::Services;

use crate::routes::{
    call::{Call, Reply},
    error::ApiError,
};

/// `GET …/room/{roomAlias}`: the room an alias stands for.
///
/// Spec: Client-Server API, "Room aliases".
pub async fn get_room(services: Services, call: Call<get_alias::Request>) -> Reply<get_alias::Response> {
    let (room_id, servers) = services.directory.resolve(&call.request.room_alias).await?;
    Ok(get_alias::Response::new(room_id, servers))
}

/// `PUT …/room/{roomAlias}`: name a room.
pub async fn put_room(services: Services, call: Call<put_alias::Request>) -> Reply<put_alias::Response> {
    services.directory.create(&call.caller, &call.request.room_alias, &call.request.room_id).await?;
    Ok(put_alias::Response::new())
}

/// `DELETE …/room/{roomAlias}`: take a name away.
pub async fn delete_room(services: Services, call: Call<delete_alias::Request>) -> Reply<delete_alias::Response> {
    services.directory.delete(&call.caller, &call.request.room_alias).await?;
    Ok(delete_alias::Response::new())
}

/// `GET …/list/room/{roomId}`: whether the list of public rooms has a room.
///
/// Spec: Client-Server API, "Published room directory".
pub async fn get_list(services: Services, call: Call<get_list::Request>) -> Reply<get_list::Response> {
    let is_listed = services.directory.is_listed(&call.request.room_id).await?;
    Ok(get_list::Response::new(if is_listed { Visibility::Public } else { Visibility::Private }))
}

/// `PUT …/list/room/{roomId}`: put a room on the list, or take it off.
pub async fn put_list(services: Services, call: Call<put_list::Request>) -> Reply<put_list::Response> {
    let is_listed = is_listed(&call.request.visibility)?;
    services.directory.list(&call.caller, &call.request.room_id, is_listed).await?;
    Ok(put_list::Response::new())
}

/// `PUT …/list/appservice/{networkId}/{roomId}`: the same, on the list of a network that the caller joins to this one.
///
/// Spec: Application Service API, "Application service room directory management".
pub async fn put_network(
    services: Services,
    call: Call<put_network_list::Request>,
) -> Reply<put_network_list::Response> {
    let put_network_list::Request { network_id, room_id, visibility, .. } = call.request;
    services.directory.list_in_network(&call.caller, &network_id, &room_id, is_listed(&visibility)?).await?;
    Ok(put_network_list::Response::new())
}

fn is_listed(visibility: &Visibility) -> Reply<bool> {
    match visibility {
        Visibility::Public => Ok(true),
        Visibility::Private => Ok(false),
        _ => Err(ApiError::invalid_param("visibility is public or private")),
    }
}
