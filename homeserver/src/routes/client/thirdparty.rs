//! `/_matrix/client/v3/thirdparty/…`: networks that application services join to this one. What those say is passed on as it is.

use axum::{
    Json,
    response::{IntoResponse as _, Response},
};
use ruma::api::client::thirdparty::{
    get_location_for_protocol::v3 as location, get_location_for_room_alias::v3 as location_of_alias,
    get_protocol::v3 as protocol, get_protocols::v3 as protocols, get_user_for_protocol::v3 as user,
    get_user_for_user_id::v3 as user_of_id,
};
use services::Services;

use crate::routes::{
    call::{Call, Endpoints, Reply},
    error::ApiError,
};

pub(super) fn endpoints(endpoints: Endpoints) -> Endpoints {
    const HERE: &str = "homeserver::routes::client::thirdparty";
    endpoints
        .raw::<protocols::Request, _, _>(get_protocols, HERE)
        .raw::<protocol::Request, _, _>(get_protocol, HERE)
        .raw::<location::Request, _, _>(get_location, HERE)
        .raw::<user::Request, _, _>(get_user, HERE)
        .raw::<location_of_alias::Request, _, _>(get_location_of_alias, HERE)
        .raw::<user_of_id::Request, _, _>(get_user_of_id, HERE)
}

/// `GET protocols`: all networks.
pub async fn get_protocols(services: Services, _: Call<protocols::Request>) -> Reply<Response> {
    Ok(Json(services.appservices.protocols().await).into_response())
}

/// `GET protocol/{protocol}`: one network.
pub async fn get_protocol(services: Services, call: Call<protocol::Request>) -> Reply<Response> {
    let found = services.appservices.protocol(&call.request.protocol).await;
    Ok(Json(found.ok_or_else(|| ApiError::not_found("no such network"))?).into_response())
}

/// `GET location/{protocol}`: places in a network.
pub async fn get_location(services: Services, call: Call<location::Request>) -> Reply<Response> {
    let query = without_token(call.query.as_deref());
    Ok(Json(services.appservices.look_up("location", Some(&call.request.protocol), &query).await).into_response())
}

/// `GET user/{protocol}`: users of a network.
pub async fn get_user(services: Services, call: Call<user::Request>) -> Reply<Response> {
    let query = without_token(call.query.as_deref());
    Ok(Json(services.appservices.look_up("user", Some(&call.request.protocol), &query).await).into_response())
}

/// `GET location`: what a room alias is in other networks.
pub async fn get_location_of_alias(services: Services, call: Call<location_of_alias::Request>) -> Reply<Response> {
    let query = without_token(call.query.as_deref());
    Ok(Json(services.appservices.look_up("location", None, &query).await).into_response())
}

/// `GET user`: what a user is in other networks.
pub async fn get_user_of_id(services: Services, call: Call<user_of_id::Request>) -> Reply<Response> {
    let query = without_token(call.query.as_deref());
    Ok(Json(services.appservices.look_up("user", None, &query).await).into_response())
}

/// A question as the application service may see it: who asks, and with which token, is not its affair.
fn without_token(query: Option<&str>) -> String {
    const OURS: [&str; 3] = ["access_token", "user_id", "device_id"];
    let pairs = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    let passed = pairs.filter(|(name, _)| !OURS.contains(&&**name));
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(passed).finish()
}
