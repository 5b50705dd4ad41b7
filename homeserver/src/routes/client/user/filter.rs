//! `/_matrix/client/v3/user/{userId}/filter`

use ruma::api::client::filter::{create_filter::v3 as create, get_filter::v3 as get};
use services::Services;

use crate::routes::{
    call::{Call, Reply},
    error::ApiError,
};

/// `POST`: keep a filter.
pub async fn post(services: Services, call: Call<create::Request>) -> Reply<create::Response> {
    let filter = serde_json::to_string(&call.request.filter).map_err(ApiError::internal)?;
    let filter_id = services.filters.create(&call.caller, &call.request.user_id, &filter).await?;
    Ok(create::Response::new(filter_id))
}

/// `GET …/{filterId}`: a filter kept before.
pub async fn get(services: Services, call: Call<get::Request>) -> Reply<get::Response> {
    let filter = services.filters.get(&call.caller, &call.request.user_id, &call.request.filter_id).await?;
    Ok(get::Response::new(serde_json::from_str(&filter).map_err(ApiError::internal)?))
}
