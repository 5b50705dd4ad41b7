//! `/_matrix/client/v1/rooms/{roomId}/relations/{eventId}`, `…/{relType}`, `…/{relType}/{eventType}`
//!
//! Types are taken as the path names them: ruma knows some by other names.

use axum::{
    Json,
    response::{IntoResponse as _, Response},
};
use ruma::{
    OwnedEventId, OwnedRoomId, UInt,
    api::{
        Direction,
        client::relations::{
            get_relating_events::v1 as all, get_relating_events_with_rel_type::v1 as of_type,
            get_relating_events_with_rel_type_and_event_type::v1 as of_types,
        },
    },
};
use serde::Serialize;
use serde_json::value::RawValue;
use services::{
    Services,
    accounts::User,
    relations::{LEVELS_MAX, Query},
};

use crate::routes::call::{Call, Reply};

#[derive(Serialize)]
struct Answer {
    chunk: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_batch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prev_batch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recursion_depth: Option<i64>,
}

/// What the three forms have in common.
struct Wish {
    room_id: OwnedRoomId,
    event_id: OwnedEventId,
    from: Option<String>,
    to: Option<String>,
    dir: Direction,
    limit: Option<UInt>,
    recurse: bool,
}

/// `GET`: what was said about an event.
///
/// Spec: Client-Server API, "Relationships API".
pub async fn get(services: Services, call: Call<all::Request>) -> Reply<Response> {
    let all::Request { room_id, event_id, from, dir, to, limit, recurse, .. } = call.request;
    let wish = Wish { room_id, event_id, from, to, dir, limit, recurse };
    answer(&services, &call.caller, wish, None, None).await
}

/// `GET …/{relType}`: the same, of one kind of relation.
pub async fn get_of_type(services: Services, call: Call<of_type::Request>) -> Reply<Response> {
    let of_type::Request { room_id, event_id, from, dir, to, limit, recurse, .. } = call.request;
    let wish = Wish { room_id, event_id, from, to, dir, limit, recurse };
    let rel_type = call.arguments.get(2).map(String::as_str);
    answer(&services, &call.caller, wish, rel_type, None).await
}

/// `GET …/{relType}/{eventType}`: the same, of one kind of relation and one type of event.
pub async fn get_of_types(services: Services, call: Call<of_types::Request>) -> Reply<Response> {
    let of_types::Request { room_id, event_id, from, dir, to, limit, recurse, .. } = call.request;
    let wish = Wish { room_id, event_id, from, to, dir, limit, recurse };
    let (rel_type, kind) = (call.arguments.get(2).map(String::as_str), call.arguments.get(3).map(String::as_str));
    answer(&services, &call.caller, wish, rel_type, kind).await
}

async fn answer(
    services: &Services,
    caller: &User,
    wish: Wish,
    rel_type: Option<&str>,
    kind: Option<&str>,
) -> Reply<Response> {
    let token = |text: Option<&String>| text.map(|text| text.parse()).transpose();
    let query = Query {
        rel_type,
        kind,
        from: token(wish.from.as_ref())?,
        to: token(wish.to.as_ref())?,
        is_forward: wish.dir == Direction::Forward,
        limit: wish.limit.map(|limit| usize::try_from(u64::from(limit)).unwrap_or(usize::MAX)),
        recurse: wish.recurse,
    };
    let page = services.relations.page(caller, &wish.room_id, &wish.event_id, &query).await?;
    let answer = Answer {
        chunk: page.chunk,
        next_batch: page.next.map(|next| next.to_string()),
        prev_batch: wish.from,
        recursion_depth: wish.recurse.then_some(LEVELS_MAX),
    };
    Ok(Json(answer).into_response())
}
