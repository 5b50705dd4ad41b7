//! Endpoints with user-interactive authentication.
//!
//! [`Interactive<R>`] is a request of ruma's whose `auth` we read ourselves: clients write it in ways ruma refuses (the
//! `user` of old, stages nobody knows), and the specification wants those answered with a 401 that says what to do.

use ruma::api::{IncomingRequest, Metadata, error::DeserializationError};
use serde_json::{Map, Value};
use services::{
    Services,
    accounts::{
        User,
        uia::{Attempt, Challenge, Demand, Progress, Proof, Stage},
    },
};

use super::error::ApiError;

/// A request and the authentication it came with.
#[derive(Debug, Clone)]
pub struct Interactive<R> {
    /// The request, without its `auth`.
    pub request: R,
    /// What stood in `auth`.
    pub auth: Option<Attempt>,
}

impl<R: Metadata> Metadata for Interactive<R> {
    const METHOD: ruma::exports::http::Method = R::METHOD;
    const RATE_LIMITED: bool = R::RATE_LIMITED;
    type Authentication = R::Authentication;
    type PathBuilder = R::PathBuilder;
    const PATH_BUILDER: Self::PathBuilder = R::PATH_BUILDER;
}

impl<R: IncomingRequest> IncomingRequest for Interactive<R> {
    type EndpointError = R::EndpointError;
    type OutgoingResponse = R::OutgoingResponse;

    fn try_from_http_request_inner(
        request: ruma::exports::http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        let mut body: Map<String, Value> = serde_json::from_slice(request.body())?;
        let auth = match body.remove("auth") {
            Some(Value::Object(object)) => Some(Attempt::from_object(object)),
            _ => None,
        };
        let rest = serde_json::to_vec(&body)?;
        let (parts, _) = request.into_parts();
        let request = ruma::exports::http::Request::from_parts(parts, rest.as_slice());
        Ok(Self { request: R::try_from_http_request_inner(request, path_args)?, auth })
    }
}

/// That a challenge must be met, as the client sees it.
impl From<Challenge> for ApiError {
    fn from(challenge: Challenge) -> Self {
        ApiError::with_body(axum::http::StatusCode::UNAUTHORIZED, challenge.to_body())
    }
}

/// Let `user` prove by password that it is them, for this one `operation`; pass when they did. Application services, which
/// have no password to give, pass.
///
/// # Errors
/// The 401 that says what to do.
pub async fn prove(services: &Services, user: &User, operation: &str, auth: Option<&Attempt>) -> Result<(), ApiError> {
    if user.appservice.is_some() {
        return Ok(());
    }
    let flows = vec![vec![Stage::Password]];
    let demand = Demand { operation, owner: Some(user), flows, params: Map::new() };
    let proof = demanded(services, demand, auth).await?;
    Ok(services.accounts.uia.finish(proof).await?)
}

/// Meet `demand`. The proof is still to be used up.
///
/// # Errors
/// The 401 that says what to do.
pub async fn demanded(services: &Services, demand: Demand<'_>, auth: Option<&Attempt>) -> Result<Proof, ApiError> {
    match services.accounts.uia.advance(demand, auth).await? {
        Progress::Done(proof) => Ok(proof),
        Progress::Challenge(challenge) => Err((*challenge).into()),
    }
}
