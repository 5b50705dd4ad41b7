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

/// The way to other servers' profiles.
#[derive(Debug, Clone)]
pub struct Asking {
    client: Client,
}

impl Asking {
    /// Over `client`.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client }
    }
}

impl RemoteProfiles for Asking {
    fn get<'a>(&'a self, user: &'a UserId, field: Option<&'a str>) -> BoxFuture<'a, Result<Profile>> {
        Box::pin(async move {
            let mut request = query::Request::new(user.to_owned());
            request.field = field.map(Into::into);
            match self.client.send(user.server_name(), request, Terms::BRIEF).await {
                Ok(answer) => {
                    Ok(answer.iter().take(FIELDS_MAX).map(|(name, value)| (name.clone(), value.clone())).collect())
                }
                Err(Error::Remote { status: Some(404), .. }) => Err(Error::NotFound("profile")),
                Err(error) => Err(error),
            }
        })
    }
}
