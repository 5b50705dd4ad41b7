//! `/_matrix/key/…`: our keys, and those of other servers as a notary.

use futures_util::{StreamExt as _, stream};
use ruma::{
    api::federation::discovery::{get_remote_server_keys, get_remote_server_keys_batch, get_server_keys},
    serde::Raw,
};
use services::Services;

use crate::routes::{
    call::{Call, Endpoints, Reply},
    error::ApiError,
};

/// Servers a notary is asked about in one request.
const SERVERS_PER_QUERY_MAX: usize = 100;
/// Servers a notary asks at a time.
const ASKED_AT_ONCE_MAX: usize = 10;

pub(super) fn endpoints(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint(get_server).endpoint(get_query).endpoint(post_query)
}

/// `GET server`: the keys we sign with.
pub async fn get_server(
    services: Services,
    _: Call<get_server_keys::v2::Request>,
) -> Reply<get_server_keys::v2::Response> {
    let answer = services.federation.keys().own_answer().await?;
    Ok(get_server_keys::v2::Response::new(Raw::from_json(answer)))
}

/// `GET query/{serverName}`: the keys of one server, with our signature added.
pub async fn get_query(
    services: Services,
    call: Call<get_remote_server_keys::v2::Request>,
) -> Reply<get_remote_server_keys::v2::Response> {
    let valid_until_ms = call.request.minimum_valid_until_ts.get().into();
    let answer = services.federation.keys().vouched(&call.request.server_name, valid_until_ms).await?;
    Ok(get_remote_server_keys::v2::Response::new(answer.into_iter().map(Raw::from_json).collect()))
}

/// `POST query`: the keys of several servers; those that cannot be had are left out.
pub async fn post_query(
    services: Services,
    call: Call<get_remote_server_keys_batch::v2::Request>,
) -> Reply<get_remote_server_keys_batch::v2::Response> {
    if call.request.server_keys.len() > SERVERS_PER_QUERY_MAX {
        return Err(ApiError::invalid_param(format!("more than {SERVERS_PER_QUERY_MAX} servers")));
    }
    let answers = stream::iter(call.request.server_keys)
        .map(|(server, wanted)| {
            let services = services.clone();
            let times = wanted.values().filter_map(|criteria| criteria.minimum_valid_until_ts);
            let valid_until_ms = times.map(|ms| ms.get().into()).max().unwrap_or(0);
            async move { services.federation.keys().vouched(&server, valid_until_ms).await }
        })
        .buffer_unordered(ASKED_AT_ONCE_MAX)
        .collect::<Vec<_>>()
        .await;
    let answers = answers.into_iter().collect::<Result<Vec<_>, _>>()?;
    let answers = answers.into_iter().flatten().map(Raw::from_json).collect();
    Ok(get_remote_server_keys_batch::v2::Response::new(answers))
}
