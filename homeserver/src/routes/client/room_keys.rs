//! `/_matrix/client/v3/room_keys/…`: room keys that clients back up, encrypted.

use std::collections::BTreeMap;

use ruma::{
    OwnedRoomId, UInt,
    api::client::backup::{
        RoomKeyBackup, add_backup_keys::v3 as put_all, add_backup_keys_for_room::v3 as put_room,
        add_backup_keys_for_session::v3 as put_session, create_backup_version::v3 as create,
        delete_backup_keys::v3 as delete_all, delete_backup_keys_for_room::v3 as delete_room,
        delete_backup_keys_for_session::v3 as delete_session, delete_backup_version::v3 as delete_version,
        get_backup_info::v3 as get_version, get_backup_keys::v3 as get_all, get_backup_keys_for_room::v3 as get_room,
        get_backup_keys_for_session::v3 as get_session, get_latest_backup_info::v3 as get_latest,
        update_backup_version::v3 as update,
    },
    serde::Raw,
};
use serde_json::{json, value::RawValue};
use services::{
    Services,
    key_backup::{Backup, Description, Part, RoomKeys},
};

use crate::routes::{
    call::{Call, Reply},
    error::ApiError,
};

/// `POST …/version`: begin a new backup.
pub async fn post_version(services: Services, call: Call<create::Request>) -> Reply<create::Response> {
    let version = services.key_backup.create(&call.caller, &description(&call.request.algorithm)?).await?;
    Ok(create::Response::new(version))
}

/// `GET …/version`: the current backup.
pub async fn get_version(services: Services, call: Call<get_latest::Request>) -> Reply<get_latest::Response> {
    let backup = services.key_backup.get(&call.caller, None).await?;
    let (etag, count) = (backup.state.etag.clone(), count(backup.state.count));
    Ok(get_latest::Response::new(algorithm(&backup)?, count, etag, backup.version))
}

/// `GET …/version/{version}`: one backup.
pub async fn get_one_version(services: Services, call: Call<get_version::Request>) -> Reply<get_version::Response> {
    let backup = services.key_backup.get(&call.caller, Some(&call.request.version)).await?;
    let (etag, count) = (backup.state.etag.clone(), count(backup.state.count));
    Ok(get_version::Response::new(algorithm(&backup)?, count, etag, backup.version))
}

/// `PUT …/version/{version}`: change what the algorithm is told.
pub async fn put_version(services: Services, call: Call<update::Request>) -> Reply<update::Response> {
    let description = description(&call.request.algorithm)?;
    services.key_backup.update(&call.caller, &call.request.version, &description).await?;
    Ok(update::Response::new())
}

/// `DELETE …/version/{version}`: delete a backup.
pub async fn delete_version(
    services: Services,
    call: Call<delete_version::Request>,
) -> Reply<delete_version::Response> {
    services.key_backup.delete(&call.caller, &call.request.version).await?;
    Ok(delete_version::Response::new())
}

/// `PUT …/keys`: add keys of many rooms.
pub async fn put_keys(services: Services, call: Call<put_all::Request>) -> Reply<put_all::Response> {
    let rooms = call.request.rooms.into_iter().map(|(room_id, room)| (room_id, raw_sessions(room.sessions)));
    let state = services.key_backup.put_keys(&call.caller, &call.request.version, &rooms.collect()).await?;
    Ok(put_all::Response::new(state.etag, count(state.count)))
}

/// `PUT …/keys/{roomId}`: add keys of a room.
pub async fn put_room(services: Services, call: Call<put_room::Request>) -> Reply<put_room::Response> {
    let rooms = RoomKeys::from([(call.request.room_id, raw_sessions(call.request.sessions))]);
    let state = services.key_backup.put_keys(&call.caller, &call.request.version, &rooms).await?;
    Ok(put_room::Response::new(state.etag, count(state.count)))
}

/// `PUT …/keys/{roomId}/{sessionId}`: add a key.
pub async fn put_session(services: Services, call: Call<put_session::Request>) -> Reply<put_session::Response> {
    let sessions = BTreeMap::from([(call.request.session_id, call.request.session_data)]);
    let rooms = RoomKeys::from([(call.request.room_id, raw_sessions(sessions))]);
    let state = services.key_backup.put_keys(&call.caller, &call.request.version, &rooms).await?;
    Ok(put_session::Response::new(state.etag, count(state.count)))
}

/// `GET …/keys`: all keys.
pub async fn get_keys(services: Services, call: Call<get_all::Request>) -> Reply<get_all::Response> {
    let rooms = services.key_backup.keys(&call.caller, &call.request.version, Part::All).await?;
    let rooms = rooms.into_iter().map(|(room_id, keys)| (room_id, RoomKeyBackup::new(typed_sessions(keys))));
    Ok(get_all::Response::new(rooms.collect()))
}

/// `GET …/keys/{roomId}`: the keys of a room.
pub async fn get_room(services: Services, call: Call<get_room::Request>) -> Reply<get_room::Response> {
    let get_room::Request { version, room_id, .. } = call.request;
    let mut rooms = services.key_backup.keys(&call.caller, &version, Part::Room(room_id.as_str())).await?;
    Ok(get_room::Response::new(typed_sessions(rooms.remove(&room_id).unwrap_or_default())))
}

/// `GET …/keys/{roomId}/{sessionId}`: one key.
pub async fn get_session(services: Services, call: Call<get_session::Request>) -> Reply<get_session::Response> {
    let get_session::Request { version, room_id, session_id, .. } = call.request;
    let part = Part::Session(room_id.as_str(), &session_id);
    let rooms = services.key_backup.keys(&call.caller, &version, part).await?;
    let key = only_key(rooms).ok_or_else(|| ApiError::not_found("the key was not found"))?;
    Ok(get_session::Response::new(Raw::from_json(key)))
}

fn only_key(rooms: BTreeMap<OwnedRoomId, BTreeMap<String, Box<RawValue>>>) -> Option<Box<RawValue>> {
    rooms.into_values().next()?.into_values().next()
}

/// `DELETE …/keys`: delete all keys.
pub async fn delete_keys(services: Services, call: Call<delete_all::Request>) -> Reply<delete_all::Response> {
    let state = services.key_backup.delete_keys(&call.caller, &call.request.version, Part::All).await?;
    Ok(delete_all::Response::new(state.etag, count(state.count)))
}

/// `DELETE …/keys/{roomId}`: delete the keys of a room.
pub async fn delete_room(services: Services, call: Call<delete_room::Request>) -> Reply<delete_room::Response> {
    let part = Part::Room(call.request.room_id.as_str());
    let state = services.key_backup.delete_keys(&call.caller, &call.request.version, part).await?;
    Ok(delete_room::Response::new(state.etag, count(state.count)))
}

/// `DELETE …/keys/{roomId}/{sessionId}`: delete one key.
pub async fn delete_session(
    services: Services,
    call: Call<delete_session::Request>,
) -> Reply<delete_session::Response> {
    let part = Part::Session(call.request.room_id.as_str(), &call.request.session_id);
    let state = services.key_backup.delete_keys(&call.caller, &call.request.version, part).await?;
    Ok(delete_session::Response::new(state.etag, count(state.count)))
}

fn count(count: u64) -> UInt {
    UInt::new_saturating(count)
}

fn description<T>(raw: &Raw<T>) -> Result<Description, ApiError> {
    let described = serde_json::from_str(raw.json().get());
    described.map_err(|error| services::Error::invalid(error.to_string()).into())
}

fn algorithm<T>(backup: &Backup) -> Result<Raw<T>, ApiError> {
    let object = json!({ "algorithm": backup.algorithm, "auth_data": &*backup.auth_data });
    let raw = serde_json::value::to_raw_value(&object).map_err(ApiError::internal)?;
    Ok(Raw::from_json(raw))
}

fn raw_sessions<T>(sessions: BTreeMap<String, Raw<T>>) -> BTreeMap<String, Box<RawValue>> {
    sessions.into_iter().map(|(id, key)| (id, key.into_json())).collect()
}

fn typed_sessions<T>(sessions: BTreeMap<String, Box<RawValue>>) -> BTreeMap<String, Raw<T>> {
    sessions.into_iter().map(|(id, key)| (id, Raw::from_json(key))).collect()
}
