//! `/_matrix/client/v3/events`, `/_matrix/client/v3/events/{eventId}`

use std::time::Duration;

use axum::{
    Json,
    response::{IntoResponse as _, Response},
};
use ruma::{
    OwnedEventId, OwnedRoomId,
    api::{
        IncomingRequest, Metadata, auth_scheme::AccessToken, client::peeking::listen_to_new_events::v3 as events,
        client::room::get_room_event::v3 as event, error::DeserializationError, metadata,
    },
    exports::http,
};
use services::Services;

use crate::routes::{
    call::{Call, Reply, query_value},
    error::ApiError,
};

/// With a room it is the peekers' endpoint, without one everybody's older one; ruma knows the former.
#[derive(Debug)]
pub struct Request;

impl Metadata for Request {
    const METHOD: http::Method = events::Request::METHOD;
    const RATE_LIMITED: bool = events::Request::RATE_LIMITED;
    type Authentication = <events::Request as Metadata>::Authentication;
    type PathBuilder = <events::Request as Metadata>::PathBuilder;
    const PATH_BUILDER: Self::PathBuilder = events::Request::PATH_BUILDER;
}

impl IncomingRequest for Request {
    type EndpointError = <events::Request as IncomingRequest>::EndpointError;
    type OutgoingResponse = events::Response;

    fn try_from_http_request_inner(_: http::Request<&[u8]>, _: &[&str]) -> Result<Self, DeserializationError> {
        Ok(Self)
    }
}

/// An endpoint ruma does not know.
#[derive(Debug)]
pub struct OneRequest {
    event_id: OwnedEventId,
}

metadata! {
    @for OneRequest,
    method: GET,
    rate_limited: true,
    authentication: AccessToken,
    history: {
        1.0 => "/_matrix/client/r0/events/{event_id}",
        1.1 => "/_matrix/client/v3/events/{event_id}",
    }
}

impl IncomingRequest for OneRequest {
    type EndpointError = <event::Request as IncomingRequest>::EndpointError;
    type OutgoingResponse = event::Response;

    fn try_from_http_request_inner(_: http::Request<&[u8]>, path_args: &[&str]) -> Result<Self, DeserializationError> {
        let arguments = path_args.iter().copied();
        let arguments = serde::de::value::SeqDeserializer::<_, serde::de::value::Error>::new(arguments);
        let (event_id,) = serde::Deserialize::deserialize(arguments)?;
        Ok(Self { event_id })
    }
}

/// `GET`: what comes next, in all rooms of the caller or in one that they may read.
///
/// Spec: Client-Server API, "Syncing", "Room previews".
pub async fn get(services: Services, call: Call<Request>) -> Reply<Response> {
    let value = |name: &str| query_value(call.query.as_deref(), name).filter(|value| !value.is_empty());
    let from = value("from").map(|from| from.parse()).transpose()?;
    let timeout = match value("timeout") {
        Some(ms) => {
            ms.parse().map(Duration::from_millis).map_err(|_| ApiError::invalid_param("timeout is a number"))?
        }
        // As in a sync, who does not say how long waits for nothing.
        None => Duration::ZERO,
    };
    let room_id = value("room_id").map(OwnedRoomId::try_from).transpose();
    let room_id = room_id.map_err(|error| ApiError::invalid_param(error.to_string()))?;
    let news = services.sync.events(&call.caller, from, timeout, room_id.as_deref()).await?;
    Ok(Json(news).into_response())
}

/// `GET …/{eventId}`: an event, whatever its room.
pub async fn get_one(services: Services, call: Call<OneRequest>) -> Reply<Response> {
    Ok(Json(services.rooms.event_of_any(&call.caller, &call.request.event_id).await?).into_response())
}
