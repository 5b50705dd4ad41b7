//! The way out to other servers, and what both ways share.

pub mod signing;

use ruma::OwnedServerName;

use crate::{Context, Error, Result};

/// Federation with other servers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Federation {
    cx: Context,
}

impl Federation {
    /// On `cx`.
    #[must_use]
    pub fn new(cx: Context) -> Self {
        Self { cx }
    }

    /// The server that signed a request.
    ///
    /// # Errors
    /// [`Error::Forbidden`] when the signature is missing, wrong or not for us.
    pub async fn authenticate(&self, _request: &http::Request<&[u8]>) -> Result<OwnedServerName> {
        let _ = &self.cx;
        Err(Error::forbidden("federation is off"))
    }
}
