//! `/_matrix/client/v3/rooms/{roomId}/messages`

use ruma::{
    OwnedRoomId,
    api::{
        IncomingRequest, Metadata,
        client::message::get_message_events::v3::{self as messages, Response},
        error::DeserializationError,
    },
    exports::http,
    serde::Raw,
};
use services::{
    Services,
    rooms::history::{PAGE_LEN, Wanted},
    sync::filter::EventFilter,
};

use crate::routes::{
    call::{Call, Reply, query_value},
    error::ApiError,
};

/// A page to read. The query is read by us: who may not read the room is told so before what they forgot to say.
#[derive(Debug)]
pub struct Request {
    room_id: OwnedRoomId,
}

impl Metadata for Request {
    const METHOD: http::Method = messages::Request::METHOD;
    const RATE_LIMITED: bool = messages::Request::RATE_LIMITED;
    type Authentication = <messages::Request as Metadata>::Authentication;
    type PathBuilder = <messages::Request as Metadata>::PathBuilder;
    const PATH_BUILDER: Self::PathBuilder = messages::Request::PATH_BUILDER;
}

impl IncomingRequest for Request {
    type EndpointError = <messages::Request as IncomingRequest>::EndpointError;
    type OutgoingResponse = Response;

    fn try_from_http_request_inner(_: http::Request<&[u8]>, path_args: &[&str]) -> Result<Self, DeserializationError> {
        let arguments = path_args.iter().copied();
        let arguments = serde::de::value::SeqDeserializer::<_, serde::de::value::Error>::new(arguments);
        let (room_id,) = serde::Deserialize::deserialize(arguments)?;
        Ok(Self { room_id })
    }
}

/// `GET`: a page of a room's history.
///
/// Spec: Client-Server API, "Getting events for a room".
pub async fn get(services: Services, call: Call<Request>) -> Reply<Response> {
    let value = |name: &str| query_value(call.query.as_deref(), name).filter(|value| !value.is_empty());
    let back = match value("dir").as_deref() {
        Some("b") => true,
        Some("f") | None => false,
        Some(_) => return Err(ApiError::invalid_param("dir is b or f")),
    };
    let filter = event_filter(value("filter").as_deref())?;
    let limit = match value("limit") {
        Some(limit) => limit.parse().map_err(|_| ApiError::invalid_param("limit is a number"))?,
        None => filter.limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(PAGE_LEN),
    };
    let from = value("from").map(|from| from.parse()).transpose()?;
    let to = value("to").map(|to| to.parse()).transpose()?;
    let wanted = Wanted { from, to, back, limit, filter };
    let page = services.rooms.messages(&call.caller, &call.request.room_id, wanted).await?;
    let mut response = Response::new();
    response.start = page.start;
    response.end = page.end;
    response.chunk = page.chunk.into_iter().map(Raw::from_json).collect();
    response.state = page.state.into_iter().map(Raw::from_json).collect();
    Ok(response)
}

/// The filter in a query.
///
/// # Errors
/// `M_INVALID_PARAM`.
pub(super) fn event_filter(text: Option<&str>) -> Reply<EventFilter> {
    let Some(text) = text else { return Ok(EventFilter::default()) };
    serde_json::from_str(text).map_err(|_| ApiError::invalid_param("filter is not a filter"))
}
