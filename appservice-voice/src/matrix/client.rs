//! Requests to our own homeserver, as the application service or as one of its users.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use crate::{room::access::StateEvent, settings::Settings};

/// Largest room state read, bytes.
const STATE_BYTES_MAX: usize = 64 << 20;
/// Largest other answer read, bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// Why the homeserver did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// It said no, and will say no again.
    #[error("the homeserver refused: {status} {errcode}")]
    Refused { status: StatusCode, errcode: String },
    /// It may do it later.
    #[error("the homeserver cannot do it now")]
    Later { retry_after: Option<Duration> },
    #[error("the homeserver cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    #[error("the homeserver's answer makes no sense")]
    Nonsense,
}

/// Whose token someone presented.
#[derive(Debug, Deserialize)]
pub struct WhoAmI {
    pub user_id: String,
    #[serde(default)]
    pub device_id: Option<String>,
    #[serde(default)]
    pub is_guest: bool,
}

/// A connection to the homeserver.
pub struct Client {
    http: reqwest::Client,
    base: Url,
    as_token: String,
}

impl Client {
    /// # Errors
    /// When the URL is none, or TLS cannot be set up.
    pub fn new(settings: &Settings) -> anyhow::Result<Self> {
        let base = Url::parse(&settings.homeserver_url)?;
        anyhow::ensure!(!base.cannot_be_a_base(), "the homeserver's URL needs a host");
        let mut builder = builder(settings.trusted_ca_pem.as_deref())?;
        if base.scheme() == "http" {
            // No certificate will be checked, so the machine's hundreds of authorities need not be read.
            builder = builder.tls_certs_only([]);
        }
        let http = builder.build()?;
        Ok(Self { http, base, as_token: settings.as_token.clone() })
    }

    /// Whose access token this is.
    ///
    /// # Errors
    /// [`Fault::Refused`] for a token that is not valid.
    pub async fn whoami(&self, access_token: &str) -> Result<WhoAmI, Fault> {
        let url = self.url(&["_matrix", "client", "v3", "account", "whoami"]);
        self.ask(Method::GET, url, access_token, None, ANSWER_BYTES_MAX).await
    }

    /// Whose OpenID token this is, when the user is one of ours.
    ///
    /// # Errors
    /// [`Fault::Refused`] for a token that is not valid.
    pub async fn openid_userinfo(&self, openid_token: &str) -> Result<Value, Fault> {
        let mut url = self.url(&["_matrix", "federation", "v1", "openid", "userinfo"]);
        url.query_pairs_mut().append_pair("access_token", openid_token);
        let request = self.http.get(url);
        read_answer(request.send().await.map_err(unreachable)?, ANSWER_BYTES_MAX).await
    }

    /// The whole current state of a room: asked as the application service, whose namespace covers the room, and where
    /// the homeserver does not grant that, as `user_id`, who is one of its users.
    ///
    /// # Errors
    /// [`Fault::Refused`] when neither may read it.
    pub async fn state(&self, room_id: &str, user_id: Option<&str>) -> Result<Vec<StateEvent>, Fault> {
        let url = self.url(&["_matrix", "client", "v3", "rooms", room_id, "state"]);
        match (self.ask(Method::GET, url.clone(), &self.as_token, None, STATE_BYTES_MAX).await, user_id) {
            (Err(Fault::Refused { .. }), Some(user_id)) => {
                self.ask(Method::GET, masquerading(url, user_id), &self.as_token, None, STATE_BYTES_MAX).await
            }
            (answer, _) => answer,
        }
    }

    /// Write a state event as `user_id`.
    ///
    /// # Errors
    /// [`Fault::Refused`] when the room's rules do not let that user.
    pub async fn put_state(
        &self,
        room_id: &str,
        kind: &str,
        key: &str,
        user_id: &str,
        content: &Value,
    ) -> Result<(), Fault> {
        let url = self.url(&["_matrix", "client", "v3", "rooms", room_id, "state", kind, key]);
        let url = masquerading(url, user_id);
        let _: Value = self.ask(Method::PUT, url, &self.as_token, Some(content), ANSWER_BYTES_MAX).await?;
        Ok(())
    }

    fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.base.clone();
        url.path_segments_mut().expect("checked in `new`: the URL has a host").pop_if_empty().extend(segments);
        url
    }

    async fn ask<T: serde::de::DeserializeOwned>(
        &self,
        method: Method,
        url: Url,
        token: &str,
        body: Option<&Value>,
        bytes_max: usize,
    ) -> Result<T, Fault> {
        let mut request = self.http.request(method, url).bearer_auth(token);
        if let Some(body) = body {
            request = request.json(body);
        }
        read_answer(request.send().await.map_err(unreachable)?, bytes_max).await
    }
}

fn masquerading(mut url: Url, user_id: &str) -> Url {
    url.query_pairs_mut().append_pair("user_id", user_id);
    url
}

/// URLs may carry tokens, so they do not go into errors.
fn unreachable(error: reqwest::Error) -> Fault {
    Fault::Unreachable(error.without_url())
}

/// HTTP as both this module and [`super::openid`] speak it: no redirects, short patience, extra certificates.
pub(super) fn builder(trusted_ca_pem: Option<&[u8]>) -> reqwest::Result<reqwest::ClientBuilder> {
    let mut builder = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(REQUEST_TIMEOUT)
        .user_agent(concat!("voicechat-voice/", env!("CARGO_PKG_VERSION")));
    if let Some(pem) = trusted_ca_pem {
        builder = builder.tls_certs_merge(reqwest::Certificate::from_pem_bundle(pem)?);
    }
    Ok(builder)
}

pub(super) async fn read_answer<T: serde::de::DeserializeOwned>(
    answer: reqwest::Response,
    bytes_max: usize,
) -> Result<T, Fault> {
    let status = answer.status();
    let body = read_body(answer, bytes_max).await?;
    if status.is_success() {
        return serde_json::from_slice(&body).map_err(|_| Fault::Nonsense);
    }
    let error: Value = serde_json::from_slice(&body).unwrap_or_default();
    if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() {
        return Err(Fault::Later { retry_after: error["retry_after_ms"].as_u64().map(Duration::from_millis) });
    }
    Err(Fault::Refused { status, errcode: error["errcode"].as_str().unwrap_or("").to_owned() })
}

async fn read_body(mut answer: reqwest::Response, bytes_max: usize) -> Result<Vec<u8>, Fault> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(unreachable)? {
        if body.len() + chunk.len() > bytes_max {
            return Err(Fault::Nonsense);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
