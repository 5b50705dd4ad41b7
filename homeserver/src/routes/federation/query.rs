//! `/_matrix/federation/v1/query/…`

use axum::http::StatusCode;
use ruma::api::federation::query::{
    get_custom_information::v1 as custom, get_profile_information::v1 as profile, get_room_information::v1 as directory,
};
use services::Services;

use crate::routes::{
    call::{Call, Reply},
    error::ApiError,
};

/// `GET directory`: which room an alias of ours stands for, and which servers are in it.
pub async fn get_directory(services: Services, call: Call<directory::Request>) -> Reply<directory::Response> {
    let (room_id, servers) = services.directory.of_ours(&call.request.room_alias).await?;
    Ok(directory::Response::new(room_id, servers))
}

/// `GET profile`: the profile of a user of ours, or one field of it.
pub async fn get_profile(services: Services, call: Call<profile::Request>) -> Reply<profile::Response> {
    let profile::Request { user_id, field, .. } = call.request;
    let profile = services.profiles.of_local(&user_id).await?;
    let wanted = |name: &String| field.as_ref().is_none_or(|field| field.as_str() == name);
    let fields: profile::Response = profile.into_iter().filter(|(name, _)| wanted(name)).collect();
    if field.is_some() && fields.iter().next().is_none() {
        return Err(ApiError::not_found("the profile has no such field"));
    }
    Ok(fields)
}

/// `GET {queryType}`: there are no other queries that we answer.
pub async fn get(_: Services, _: Call<custom::Request>) -> Reply<custom::Response> {
    Err(ApiError::unrecognized(StatusCode::NOT_FOUND))
}
