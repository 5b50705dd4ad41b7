//! The way out to push gateways, whose addresses come from users: [`crate::outgoing`] says where they may not lead.

use std::{fmt, time::Duration};

use futures_util::{StreamExt as _, future::BoxFuture};
use serde_json::Value;

use crate::{Error, Result, outgoing::Outgoing};

/// Until a gateway has answered.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// The longest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Sends a notification to a gateway.
pub trait Outlet: fmt::Debug + Send + Sync {
    /// Post JSON; the status and the body of the answer.
    fn post<'a>(&'a self, url: &'a str, body: &'a Value) -> BoxFuture<'a, Result<(u16, Vec<u8>)>>;
}

/// Over HTTP.
#[derive(Debug, Clone)]
pub struct HttpOutlet {
    client: reqwest::Client,
    outgoing: Outgoing,
}

impl HttpOutlet {
    /// Under the policy of `outgoing`.
    ///
    /// # Errors
    /// [`Error::Internal`] when the machine offers no way to make a client.
    pub fn new(outgoing: Outgoing) -> Result<Self> {
        let client = outgoing.client().timeout(ANSWER_TIMEOUT).build().map_err(Error::internal)?;
        Ok(Self { client, outgoing })
    }

    async fn send(&self, url: &str, body: &Value) -> Result<(u16, Vec<u8>)> {
        let url = url::Url::parse(url).map_err(|error| Error::InvalidParam(error.to_string()))?;
        if !self.outgoing.may_ask(&url) {
            return Err(Error::forbidden("a push gateway on a private address"));
        }
        let response = self.client.post(url).json(body).send().await.map_err(unanswered)?;
        let status = response.status().as_u16();
        let mut answer = Vec::new();
        let mut chunks = response.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(unanswered)?;
            if answer.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(Error::TooLarge("the answer of a push gateway".to_owned()));
            }
            answer.extend_from_slice(&chunk);
        }
        Ok((status, answer))
    }
}

fn unanswered(error: reqwest::Error) -> Error {
    // Without the address: it may hold what only the user's device should know.
    Error::internal(error.without_url())
}

impl Outlet for HttpOutlet {
    fn post<'a>(&'a self, url: &'a str, body: &'a Value) -> BoxFuture<'a, Result<(u16, Vec<u8>)>> {
        Box::pin(self.send(url, body))
    }
}
