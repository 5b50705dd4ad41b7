//! `/_matrix/federation/v1/openid/userinfo`

use ruma::{OwnedUserId, api::federation::openid::get_openid_userinfo::v1 as userinfo};
use services::Services;

use crate::routes::{
    call::{Call, Reply},
    error::ApiError,
};

/// `GET`: whom an OpenID token belongs to.
///
/// Spec: Server-Server API, "OpenID".
pub async fn get(services: Services, call: Call<userinfo::Request>) -> Reply<userinfo::Response> {
    let owner = services.accounts.openid.openid_owner(&call.request.access_token).await?;
    let owner = OwnedUserId::try_from(owner).map_err(ApiError::internal)?;
    Ok(userinfo::Response::new(owner))
}
