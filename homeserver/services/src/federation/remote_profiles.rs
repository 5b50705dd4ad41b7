//! Asking other servers for the profiles of their users.

use futures_util::future::BoxFuture;
use ruma::{UserId, api::federation::query::get_profile_information::v1 as query};

use super::client::{Client, Terms};
use crate::{
    Error, Result,
    profiles::{Profile, RemoteProfiles},
};

/// Fields of a profile.
const FIELDS_MAX: usize = 100;

impl RemoteProfiles for Client {
    fn get<'a>(&'a self, user: &'a UserId, field: Option<&'a str>) -> BoxFuture<'a, Result<Profile>> {
        Box::pin(async move {
            let mut request = query::Request::new(user.to_owned());
            request.field = field.map(Into::into);
            match self.send(user.server_name(), request, Terms::BRIEF).await {
                Ok(answer) => {
                    Ok(answer.iter().take(FIELDS_MAX).map(|(name, value)| (name.clone(), value.clone())).collect())
                }
                Err(Error::Remote { status: Some(404), .. }) => Err(Error::NotFound("profile")),
                Err(error) => Err(error),
            }
        })
    }
}
