//! Asks application services.
//!
//! They are where the operator says, so private addresses are fine. The specification's paths come first; one that does not know
//! them is asked again by its older path, and remembered for [`OLDER_FOR`].

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use reqwest::{Method, StatusCode};
use serde_json::Value;

use super::registration::Registration;
use crate::{Error, Result, clock::Clock, outgoing::Outgoing};

/// The largest answer read, in bytes.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// How long one that knows only older paths is not asked by the newer ones.
const OLDER_FOR: Duration = Duration::from_secs(600);

/// A question.
#[derive(Debug)]
pub(super) struct Question<'a> {
    /// How.
    pub method: Method,
    /// The path, with its query.
    pub path: String,
    /// The path that was used before the specification had versions here.
    pub older_path: Option<String>,
    /// What is sent along.
    pub body: Option<&'a [u8]>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The registration has no address.
    #[error("it has no address")]
    NoUrl,
    /// Nobody answered at the address.
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    /// It did not answer in time.
    #[error("it did not answer in time")]
    Timeout,
    /// It refused.
    #[error("it answered {status}")]
    Status {
        /// With this status.
        status: u16,
        /// And these words.
        body: String,
    },
}

/// The client.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    clock: Clock,
    /// Until when (milliseconds since 1970) an application service is asked by older paths.
    older: Mutex<HashMap<String, u64>>,
}

impl Client {
    /// With the operator's trusted authorities.
    pub(super) fn new(outgoing: &Outgoing, timeout: Duration, clock: Clock) -> Result<Self> {
        let http = outgoing.to_any_address().client().timeout(timeout).build().map_err(Error::internal)?;
        Ok(Self { http, clock, older: Mutex::default() })
    }

    /// Ask, and read the JSON of the answer.
    pub(super) async fn ask(&self, of: &Registration, question: &Question<'_>) -> Result<Value, Fault> {
        if let Some(older) = question.older_path.as_ref().filter(|_| self.is_older(&of.id)) {
            return self.ask_at(of, question, older).await;
        }
        let answer = self.ask_at(of, question, &question.path).await;
        match (&answer, &question.older_path) {
            (Err(Fault::Status { status: 404 | 405 | 501, body }), Some(older)) if !is_of_the_api(body) => {
                let answer = self.ask_at(of, question, older).await;
                if answer.is_ok() {
                    let until = self.clock.now_ms() + u64::try_from(OLDER_FOR.as_millis()).unwrap_or(u64::MAX);
                    self.older.lock().unwrap_or_else(PoisonError::into_inner).insert(of.id.clone(), until);
                }
                answer
            }
            _ => answer,
        }
    }

    fn is_older(&self, id: &str) -> bool {
        let older = self.older.lock().unwrap_or_else(PoisonError::into_inner);
        older.get(id).is_some_and(|until| *until > self.clock.now_ms())
    }

    async fn ask_at(&self, of: &Registration, question: &Question<'_>, path: &str) -> Result<Value, Fault> {
        let url = of.url.as_ref().ok_or(Fault::NoUrl)?;
        let mut request = self.http.request(question.method.clone(), format!("{url}{path}")).bearer_auth(&of.hs_token);
        if let Some(body) = question.body {
            request = request.header("content-type", "application/json").body(body.to_vec());
        }
        let mut answer = request.send().await.map_err(|error| fault(&error))?;
        let status = answer.status();
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| fault(&error))? {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(Fault::Unreachable(format!("it sent more than {ANSWER_BYTES_MAX} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        if status != StatusCode::OK {
            let body = String::from_utf8_lossy(&body).into_owned();
            return Err(Fault::Status { status: status.as_u16(), body });
        }
        Ok(serde_json::from_slice(&body).unwrap_or_default())
    }
}

/// Whether a 404 is an answer (no such user) rather than an unknown path.
fn is_of_the_api(body: &str) -> bool {
    let code =
        serde_json::from_str::<Value>(body).ok().and_then(|body| body.get("errcode")?.as_str().map(str::to_owned));
    code.is_some_and(|code| code != "M_UNRECOGNIZED")
}

fn fault(error: &reqwest::Error) -> Fault {
    if error.is_timeout() {
        return Fault::Timeout;
    }
    // The innermost cause says why; the outer ones name the address, which the operator knows.
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    Fault::Unreachable(cause.to_string())
}

/// A part of a path, encoded.
pub(super) fn part(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len() + 8);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            use std::fmt::Write as _;
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}
