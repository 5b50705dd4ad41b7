//! `/_matrix/client/v3/initialSync`

use axum::{
    Json,
    response::{IntoResponse as _, Response},
};
use ruma::{
    api::{
        IncomingRequest, auth_scheme::AccessToken, client::peeking::get_current_state::v3 as one_room,
        error::DeserializationError, metadata,
    },
    exports::http,
};
use services::Services;

use crate::routes::{
    call::{Call, Reply, query_value},
    error::ApiError,
};

/// An endpoint ruma does not know.
#[derive(Debug)]
pub struct Request;

metadata! {
    method: GET,
    rate_limited: true,
    authentication: AccessToken,
    history: {
        1.0 => "/_matrix/client/r0/initialSync",
        1.1 => "/_matrix/client/v3/initialSync",
    }
}

impl IncomingRequest for Request {
    type EndpointError = <one_room::Request as IncomingRequest>::EndpointError;
    type OutgoingResponse = one_room::Response;

    fn try_from_http_request_inner(_: http::Request<&[u8]>, _: &[&str]) -> Result<Self, DeserializationError> {
        Ok(Self)
    }
}

/// `GET`: all rooms of the caller, before there was `/sync`.
///
/// Spec: Client-Server API, "Syncing".
pub async fn get(services: Services, call: Call<Request>) -> Reply<Response> {
    let value = |name: &str| query_value(call.query.as_deref(), name).filter(|value| !value.is_empty());
    let limit = value("limit").map(|limit| limit.parse()).transpose();
    let limit = limit.map_err(|_| ApiError::invalid_param("limit is a number"))?;
    let with_left = value("archived").is_some_and(|value| value == "true");
    Ok(Json(services.sync.overview(&call.caller, limit, with_left).await?).into_response())
}
