//! `/_matrix/client/v3/profile/{userId}`, `…/profile/{userId}/{keyName}`

use axum::{
    Json,
    response::{IntoResponse as _, Response},
};
use ruma::{
    OwnedUserId,
    api::{
        IncomingRequest, Metadata,
        client::profile::{
            delete_profile_field::v3 as delete_field, get_profile::v3 as get_profile,
            get_profile_field::v3 as get_profile_field, set_profile_field::v3 as set_field,
        },
        error::DeserializationError,
    },
    exports::http,
};
use serde_json::{Map, Value, json};
use services::{Services, accounts::User, limits::Action, profiles::Changed, rooms::membership::Face};

use crate::routes::call::{Call, Reply};

/// A field to be set. Read by us, because ruma refuses the nulls with which clients unset a name.
#[derive(Debug)]
pub struct SetField {
    user_id: OwnedUserId,
    field: String,
    value: Value,
}

impl Metadata for SetField {
    const METHOD: http::Method = set_field::Request::METHOD;
    const RATE_LIMITED: bool = set_field::Request::RATE_LIMITED;
    type Authentication = <set_field::Request as Metadata>::Authentication;
    type PathBuilder = <set_field::Request as Metadata>::PathBuilder;
    const PATH_BUILDER: Self::PathBuilder = set_field::Request::PATH_BUILDER;
}

impl IncomingRequest for SetField {
    type EndpointError = <set_field::Request as IncomingRequest>::EndpointError;
    type OutgoingResponse = set_field::Response;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        use serde::de::Error as _;
        let (user_id, field) = path_and_field(path_args)?;
        let mut body: Map<String, Value> = serde_json::from_slice(request.body())?;
        let value = match (body.remove(&field), field.as_str()) {
            (Some(value), _) => value,
            // Clients of old unset what they leave out.
            (None, "displayname" | "avatar_url") if body.is_empty() => Value::Null,
            (None, _) => return Err(serde_json::Error::custom(format!("missing field `{field}`")).into()),
        };
        Ok(Self { user_id, field, value })
    }
}

fn path_and_field(path_args: &[&str]) -> Result<(OwnedUserId, String), DeserializationError> {
    let arguments = path_args.iter().copied();
    let arguments = serde::de::value::SeqDeserializer::<_, serde::de::value::Error>::new(arguments);
    Ok(serde::Deserialize::deserialize(arguments)?)
}

/// `GET`: a user's whole profile.
pub async fn get(services: Services, call: Call<get_profile::Request>) -> Reply<get_profile::Response> {
    Ok(services.profiles.get(&call.request.user_id).await?.into_iter().collect())
}

/// `GET …/{keyName}`: one field.
pub async fn get_field(services: Services, call: Call<get_profile_field::Request>) -> Reply<Response> {
    let field = call.request.field.as_str();
    let value = services.profiles.field(&call.request.user_id, field).await?;
    Ok(Json(json!({ field: value })).into_response())
}

/// `PUT …/{keyName}`: set a field of one's own profile.
pub async fn put_field(services: Services, call: Call<SetField>) -> Reply<set_field::Response> {
    let SetField { user_id, field, value } = call.request;
    call.caller.must_be(&user_id)?;
    services.limits.take_for(Action::Request, &call.caller).await?;
    let changed = services.profiles.set(call.caller.nid, &field, value).await?;
    show(&services, &call.caller, changed).await?;
    Ok(set_field::Response::new())
}

/// `DELETE …/{keyName}`: remove a field of one's own profile.
pub async fn delete_field(services: Services, call: Call<delete_field::Request>) -> Reply<delete_field::Response> {
    call.caller.must_be(&call.request.user_id)?;
    services.limits.take_for(Action::Request, &call.caller).await?;
    let changed = services.profiles.remove(call.caller.nid, call.request.field.as_str()).await?;
    show(&services, &call.caller, changed).await?;
    Ok(delete_field::Response::new())
}

/// Carry a new name or avatar into the caller's rooms.
async fn show(services: &Services, caller: &User, changed: Changed) -> Reply<()> {
    if changed.concerns_rooms {
        let face = Face { display_name: changed.display_name, avatar_url: changed.avatar_url };
        services.rooms.show_profile(&caller.user_id, caller.nid, &face).await?;
    }
    Ok(())
}
