//! `/_matrix/client/v3/user_directory/search`

use axum::{
    Json,
    response::{IntoResponse as _, Response},
};
use ruma::api::client::user_directory::search_users::v3::Request;
use services::Services;

use crate::routes::call::{Call, Reply};

/// `POST`: users by id or name.
///
/// Spec: Client-Server API, "User Directory".
pub async fn post_search(services: Services, call: Call<Request>) -> Reply<Response> {
    let limit = usize::try_from(u64::from(call.request.limit)).unwrap_or(usize::MAX);
    let found = services.user_directory.search(&call.caller, &call.request.search_term, Some(limit)).await?;
    Ok(Json(found).into_response())
}
