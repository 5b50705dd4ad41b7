//! Which server a request comes from, proven by its `X-Matrix` signature.
//!
//! Source: Server-Server API, "Request Authentication".

use std::collections::BTreeSet;

use ruma::{OwnedServerName, api::federation::authentication::XMatrix, signatures::PublicKeyMap};

use super::{Federation, keys::Needed};
use crate::{Error, Result, error::Code};

impl Federation {
    /// The server that signed a request to us: method, path with query and body are what it signed, and it meant us.
    ///
    /// # Errors
    /// [`Code::Unauthorized`] when the signature is missing, wrong or not for us; [`Error::Forbidden`] when federation is off.
    pub async fn authenticate(&self, request: &http::Request<&[u8]>) -> Result<OwnedServerName> {
        if !self.settings.is_enabled {
            return Err(Error::forbidden("federation is off"));
        }
        let proof = XMatrix::extract_from_http_headers(request.headers()).map_err(unauthorized)?;
        if proof.destination.as_ref().is_some_and(|destination| !self.cx.is_us(destination)) {
            return Err(unauthorized("the request is meant for another server"));
        }
        if self.cx.is_us(&proof.origin) {
            return Err(unauthorized("this server does not ask itself"));
        }
        if request.uri().path_and_query().is_none() {
            return Err(unauthorized("the request has no path"));
        }
        let ids = BTreeSet::from([proof.key.to_string()]);
        let keys = self.keys.of(&proof.origin, &ids, Needed::Now).await?;
        if keys.is_empty() {
            return Err(unauthorized(format_args!("key {} of {} cannot be had", proof.key, proof.origin)));
        }
        let keys = PublicKeyMap::from([(proof.origin.to_string(), keys)]);
        proof.verify_http_request(request, &self.cx.server_name, &keys).map_err(unauthorized)?;
        self.client.health().succeeded(&proof.origin).await;
        Ok(proof.origin)
    }
}

fn unauthorized(problem: impl std::fmt::Display) -> Error {
    Error::Specific(Code::Unauthorized, problem.to_string())
}
