//! Asking other servers: find, connect, sign, send, read at most so much, and remember who does not answer.
//!
//! The only way out to other servers. Requests are ruma's types; what comes back is ruma's response or [`Error::Remote`].
//! Not here: what to ask. No request is repeated here: the caller knows whether another server could answer instead.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use futures_util::{StreamExt as _, stream::BoxStream};
use quick_cache::sync::Cache;
use ruma::{
    OwnedServerName, ServerName,
    api::{
        IncomingResponse, OutgoingRequest, OutgoingRequestExt as _,
        auth_scheme::NoAuthentication,
        error::Error as MatrixError,
        federation::authentication::{ServerSignatures, XMatrixSigningInput},
        path_builder::SinglePath,
    },
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    discovery::{Discovery, Route, literal},
    health::Health,
};
use crate::{Context, Error, Result, outgoing::Outgoing};

/// Requests to one server at a time; the others wait.
const REQUESTS_PER_SERVER_MAX: usize = 10;
/// Clients kept for servers whose name leads elsewhere (SRV).
const TARGETED_CLIENTS_MAX: usize = 1_000;
/// Servers whose count of requests is held before unused counts are dropped.
const COUNTS_MAX: usize = 1_000;
/// Large answers held in memory at a time, all servers together; an answer that finds no room fails.
const ROOM_KIB: usize = 768 << 10;
/// What every answer may take without asking for room, and how much it asks for at a time.
const ROOM_STEP_KIB: u32 = 1 << 10;
/// After how long a request that found no room may be tried again.
const ROOM_RETRY: Duration = Duration::from_secs(30);

/// What a request may take.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// Until the whole answer is there.
    pub timeout: Duration,
    /// The largest answer.
    pub body_bytes_max: usize,
    /// Ask even a server that failed a moment ago.
    pub ignores_pause: bool,
    /// Whether any answer but success counts as a failure of the server. Otherwise a refusal is an answer like others.
    pub needs_success: bool,
}

impl Terms {
    /// For a question somebody waits for.
    pub const BRIEF: Self =
        Self { timeout: Duration::from_secs(30), body_bytes_max: 8 << 20, ignores_pause: false, needs_success: false };
    /// For the state of a large room.
    pub const LARGE: Self = Self { timeout: Duration::from_secs(180), body_bytes_max: 256 << 20, ..Self::BRIEF };

    /// The same, also to a server that failed a moment ago: a person asked for this very server.
    #[must_use]
    pub const fn at_once(mut self) -> Self {
        self.ignores_pause = true;
        self
    }
}

/// An answer that may be large, and the room in memory it takes until this is dropped.
#[derive(Debug)]
pub struct Held<T> {
    /// The answer.
    pub answer: T,
    _room: Option<OwnedSemaphorePermit>,
}

/// Asks other servers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    cx: Context,
    is_enabled: bool,
    outgoing: Outgoing,
    discovery: Discovery,
    health: Health,
    http: reqwest::Client,
    targeted: Cache<(String, Vec<SocketAddr>), reqwest::Client>,
    under_way: Mutex<HashMap<OwnedServerName, Weak<Semaphore>>>,
    /// What is left of [`ROOM_KIB`].
    room: Arc<Semaphore>,
}

impl Client {
    /// Over connections of this policy.
    ///
    /// # Errors
    /// [`Error::Internal`] when no HTTP client can be made.
    pub fn new(cx: Context, is_enabled: bool, outgoing: Outgoing, health: Health) -> Result<Self> {
        let discovery = Discovery::new(cx.clock.clone(), outgoing.clone()).map_err(Error::internal)?;
        let http = outgoing.client().build().map_err(Error::internal)?;
        Ok(Self(Arc::new(Inner {
            cx,
            is_enabled,
            outgoing,
            discovery,
            health,
            http,
            targeted: Cache::new(TARGETED_CLIENTS_MAX),
            under_way: Mutex::default(),
            room: Arc::new(Semaphore::new(ROOM_KIB)),
        })))
    }

    /// How reaching others goes.
    #[must_use]
    pub fn health(&self) -> &Health {
        &self.0.health
    }

    /// Ask `server`, signed.
    ///
    /// # Errors
    /// [`Error::Remote`] whatever goes wrong between us and them.
    pub async fn send<R>(&self, server: &ServerName, request: R, terms: Terms) -> Result<R::IncomingResponse>
    where
        R: OutgoingRequest<Authentication = ServerSignatures, PathBuilder = SinglePath, EndpointError = MatrixError>,
    {
        Ok(self.send_for_large(server, request, terms).await?.answer)
    }

    /// Ask `server`, signed, for what may be large: whoever deals with the answer holds its room in memory meanwhile.
    ///
    /// # Errors
    /// As [`Client::send`]; [`Error::Limited`] when too many large answers are in memory.
    pub async fn send_for_large<R>(
        &self,
        server: &ServerName,
        request: R,
        terms: Terms,
    ) -> Result<Held<R::IncomingResponse>>
    where
        R: OutgoingRequest<Authentication = ServerSignatures, PathBuilder = SinglePath, EndpointError = MatrixError>,
    {
        let Held { answer, _room } = self.send_signed(server, request, terms).await?;
        Ok(Held { answer: parse::<R>(server, answer)?, _room })
    }

    async fn send_signed<R>(
        &self,
        server: &ServerName,
        request: R,
        terms: Terms,
    ) -> Result<Held<http::Response<Vec<u8>>>>
    where
        R: OutgoingRequest<Authentication = ServerSignatures, PathBuilder = SinglePath, EndpointError = MatrixError>,
    {
        let route = self.admit(server, terms).await?;
        let cx = &self.0.cx;
        let input = XMatrixSigningInput::new(cx.server_name.clone(), server.to_owned(), cx.signing_key.pair());
        let request = request
            .try_into_http_request::<Vec<u8>>(&route.base_url(), input, ())
            .map_err(|error| Error::internal(format_args!("a request cannot be written: {error}")))?;
        self.exchange(server, &route, request, terms).await
    }

    /// Ask `server`, signed, and read the answer as a type of ours.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn read<R, T>(&self, server: &ServerName, request: R, terms: Terms) -> Result<T>
    where
        R: OutgoingRequest<Authentication = ServerSignatures, PathBuilder = SinglePath, EndpointError = MatrixError>,
        T: serde::de::DeserializeOwned,
    {
        let held = self.send_signed(server, request, terms).await?;
        serde_json::from_slice(held.answer.body())
            .map_err(|error| failure(server, format!("its answer cannot be read: {error}")))
    }

    /// Ask `server` without a signature (keys, version).
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn send_open<R>(&self, server: &ServerName, request: R, terms: Terms) -> Result<R::IncomingResponse>
    where
        R: OutgoingRequest<Authentication = NoAuthentication, PathBuilder = SinglePath, EndpointError = MatrixError>,
    {
        let route = self.admit(server, terms).await?;
        let request = request
            .try_into_http_request::<Vec<u8>>(&route.base_url(), (), ())
            .map_err(|error| Error::internal(format_args!("a request cannot be written: {error}")))?;
        let held = self.exchange(server, &route, request, terms).await?;
        parse::<R>(server, held.answer)
    }

    /// Ask `server`, signed, and read the answer as it comes. `timeout` is until the answer begins.
    ///
    /// # Errors
    /// [`Error::Remote`] unless the status says success.
    pub async fn stream_signed<R>(&self, server: &ServerName, request: R, timeout: Duration) -> Result<Streamed>
    where
        R: OutgoingRequest<Authentication = ServerSignatures, PathBuilder = SinglePath, EndpointError = MatrixError>,
    {
        let route = self.admit(server, Terms::BRIEF).await?;
        let cx = &self.0.cx;
        let input = XMatrixSigningInput::new(cx.server_name.clone(), server.to_owned(), cx.signing_key.pair());
        let request = request
            .try_into_http_request::<Vec<u8>>(&route.base_url(), input, ())
            .map_err(|error| Error::internal(format_args!("a request cannot be written: {error}")))?;
        self.stream(server, &route, request, timeout).await
    }

    /// The same for a path, without a signature.
    ///
    /// # Errors
    /// As [`Client::stream_signed`].
    pub async fn stream_open(&self, server: &ServerName, path: &str, timeout: Duration) -> Result<Streamed> {
        let route = self.admit(server, Terms::BRIEF).await?;
        let request = http::Request::get(format!("{}{path}", route.base_url())).body(Vec::new());
        self.stream(server, &route, request.map_err(Error::internal)?, timeout).await
    }

    /// What is at an address `server` pointed to.
    ///
    /// # Errors
    /// As [`Client::stream_signed`]; also when the address is not https or not public.
    pub async fn stream_at(&self, server: &ServerName, url: url::Url, timeout: Duration) -> Result<Streamed> {
        if !self.0.is_enabled || url.scheme() != "https" || !self.0.outgoing.may_ask(&url) {
            return Err(failure(server, "it points where this server does not go"));
        }
        let answer = tokio::time::timeout(timeout, self.0.http.get(url).send()).await;
        let answer = answer.map_err(|_| failure(server, "no answer in time"))?;
        streamed(server, answer.map_err(|error| failure(server, causes(&error)))?, None).await
    }

    async fn stream(
        &self,
        server: &ServerName,
        route: &Route,
        mut request: http::Request<Vec<u8>>,
        timeout: Duration,
    ) -> Result<Streamed> {
        if let Ok(authority) = route.authority.parse() {
            request.headers_mut().insert(http::header::HOST, authority);
        }
        let permit = tokio::time::timeout(timeout, self.count(server).acquire_owned()).await;
        let permit = permit.map_err(|_| failure(server, "too many requests to it are under way"))?;
        let permit = permit.map_err(|_| Error::Stopping)?;
        let begun = async {
            let request = reqwest::Request::try_from(request).map_err(|error| error.to_string())?;
            self.http(route).await?.execute(request).await.map_err(|error| causes(&error))
        };
        match tokio::time::timeout(timeout, begun).await.unwrap_or_else(|_| Err("no answer in time".to_owned())) {
            Ok(answer) => {
                self.0.health.succeeded(server).await;
                streamed(server, answer, Some(permit)).await
            }
            Err(problem) => {
                self.0.discovery.forget(server);
                self.0.health.failed(server).await;
                Err(failure(server, problem))
            }
        }
    }

    /// Whether and where `server` may be asked now.
    async fn admit(&self, server: &ServerName, terms: Terms) -> Result<Route> {
        if !self.0.is_enabled {
            return Err(Error::forbidden("federation is off"));
        }
        if self.0.cx.is_us(server) {
            return Err(failure(server, "that is this server"));
        }
        if !terms.ignores_pause && self.0.health.pause_ms(server) > 0 {
            return Err(failure(server, "it did not answer a moment ago"));
        }
        let route = self.0.discovery.route(server).await;
        if literal(&route.host).is_some_and(|address| !self.0.outgoing.may_reach(address)) {
            return Err(failure(server, "its address is not public"));
        }
        Ok(route)
    }

    async fn exchange(
        &self,
        server: &ServerName,
        route: &Route,
        mut request: http::Request<Vec<u8>>,
        terms: Terms,
    ) -> Result<Held<http::Response<Vec<u8>>>> {
        if let Ok(authority) = route.authority.parse() {
            request.headers_mut().insert(http::header::HOST, authority);
        }
        let counted = self.count(server);
        let permit = tokio::time::timeout(terms.timeout, counted.acquire()).await;
        let permit = permit.map_err(|_| failure(server, "too many requests to it are under way"))?;
        let _permit = permit.map_err(|_| Error::Stopping)?;
        let transfer = self.transfer(server, route, request, terms.body_bytes_max);
        let outcome = tokio::time::timeout(terms.timeout, transfer).await;
        match outcome.unwrap_or_else(|_| Err(failure(server, "no answer in time"))) {
            Ok(held) => {
                let status = held.answer.status();
                // What says "not now" rather than "no".
                let is_away = matches!(status.as_u16(), 429 | 502..=504);
                if is_away || terms.needs_success && !status.is_success() {
                    self.0.health.failed(server).await;
                } else {
                    self.0.health.succeeded(server).await;
                }
                if status.is_success() { Ok(held) } else { Err(refusal(server, &held.answer)) }
            }
            // Our own memory is full.
            Err(error @ Error::Limited { .. }) => Err(error),
            Err(error) => {
                tracing::debug!(%server, %error, "a server cannot be reached");
                self.0.discovery.forget(server);
                self.0.health.failed(server).await;
                Err(error)
            }
        }
    }

    async fn transfer(
        &self,
        server: &ServerName,
        route: &Route,
        request: http::Request<Vec<u8>>,
        body_bytes_max: usize,
    ) -> Result<Held<http::Response<Vec<u8>>>> {
        let request = reqwest::Request::try_from(request).map_err(|error| failure(server, error.to_string()))?;
        let http = self.http(route).await.map_err(|problem| failure(server, problem))?;
        let mut answer = http.execute(request).await.map_err(|error| failure(server, causes(&error)))?;
        let (mut body, mut room) = (Vec::new(), None);
        while let Some(chunk) = answer.chunk().await.map_err(|error| failure(server, causes(&error)))? {
            let len = body.len() + chunk.len();
            if len > body_bytes_max {
                return Err(failure(server, format!("its answer is larger than {body_bytes_max} bytes")));
            }
            self.make_room(&mut room, len)?;
            body.extend_from_slice(&chunk);
        }
        let mut response = http::Response::new(body);
        *response.status_mut() = answer.status();
        *response.headers_mut() = std::mem::take(answer.headers_mut());
        Ok(Held { answer: response, _room: room })
    }

    /// See that `room` is enough for an answer of `len` bytes.
    fn make_room(&self, room: &mut Option<OwnedSemaphorePermit>, len: usize) -> Result<()> {
        while room.as_ref().map_or(0, OwnedSemaphorePermit::num_permits) + (ROOM_STEP_KIB as usize)
            < len.div_ceil(1 << 10)
        {
            let more = Arc::clone(&self.0.room).try_acquire_many_owned(ROOM_STEP_KIB);
            let more = more.map_err(|_| Error::Limited { retry_after: ROOM_RETRY })?;
            match room {
                Some(room) => room.merge(more),
                None => *room = Some(more),
            }
        }
        Ok(())
    }

    /// The client that connects where the route leads.
    async fn http(&self, route: &Route) -> Result<reqwest::Client, String> {
        let Some(target) = &route.target else { return Ok(self.0.http.clone()) };
        let mut addresses = self.0.outgoing.addresses(target, route.port).await?;
        addresses.sort_unstable();
        let key = (route.host.clone(), addresses);
        if let Some(client) = self.0.targeted.get(&key) {
            return Ok(client);
        }
        let client = self.0.outgoing.client().resolve_to_addrs(&key.0, &key.1).build();
        let client = client.map_err(|error| error.to_string())?;
        self.0.targeted.insert(key, client.clone());
        Ok(client)
    }

    fn count(&self, server: &ServerName) -> Arc<Semaphore> {
        let mut under_way = self.0.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(semaphore) = under_way.get(server).and_then(Weak::upgrade) {
            return semaphore;
        }
        if under_way.len() >= COUNTS_MAX {
            under_way.retain(|_, semaphore| semaphore.strong_count() > 0);
        }
        let semaphore = Arc::new(Semaphore::new(REQUESTS_PER_SERVER_MAX));
        under_way.insert(server.to_owned(), Arc::downgrade(&semaphore));
        semaphore
    }
}

/// Body of an answer that says no.
const REFUSAL_BYTES_MAX: usize = 64 << 10;

/// An answer that is read as it comes.
pub struct Streamed {
    /// Its headers.
    pub headers: http::HeaderMap,
    /// Its body. How much of it is read is for the reader to bound.
    pub body: BoxStream<'static, Result<bytes::Bytes>>,
}

async fn streamed(
    server: &ServerName,
    mut answer: reqwest::Response,
    permit: Option<OwnedSemaphorePermit>,
) -> Result<Streamed> {
    let headers = std::mem::take(answer.headers_mut());
    if !answer.status().is_success() {
        let mut response = http::Response::new(Vec::new());
        *response.status_mut() = answer.status();
        while let Ok(Some(chunk)) = answer.chunk().await
            && response.body().len() < REFUSAL_BYTES_MAX
        {
            response.body_mut().extend_from_slice(&chunk);
        }
        return Err(refusal(server, &response));
    }
    let server = server.to_owned();
    let body = answer.bytes_stream().map(move |chunk| {
        // Held until the last byte: a stream counts among the requests to its server.
        let _permit = &permit;
        chunk.map_err(|error| failure(&server, causes(&error)))
    });
    Ok(Streamed { headers, body: body.boxed() })
}

fn parse<R: OutgoingRequest<EndpointError = MatrixError>>(
    server: &ServerName,
    response: http::Response<Vec<u8>>,
) -> Result<R::IncomingResponse> {
    let response = response.map(|body| if body.is_empty() { b"{}".to_vec() } else { body });
    let (parts, body) = response.into_parts();
    <R::IncomingResponse as IncomingResponse>::try_from_http_response_inner(http::Response::from_parts(parts, &*body))
        .map_err(|error| failure(server, format!("its answer cannot be read: {error}")))
}

/// [`Error::Remote`] without an answer.
pub(crate) fn failure(server: &ServerName, problem: impl Into<String>) -> Error {
    Error::Remote { server: server.to_owned(), problem: problem.into(), status: None, matrix: None }
}

/// [`Error::Remote`] for an answer that says no.
fn refusal(server: &ServerName, response: &http::Response<Vec<u8>>) -> Error {
    #[derive(serde::Deserialize)]
    struct Body {
        errcode: String,
        #[serde(default)]
        error: String,
    }
    let body: Option<Body> = serde_json::from_slice(response.body()).ok();
    Error::Remote {
        server: server.to_owned(),
        problem: match &body {
            Some(body) => format!("it answers {}: {}", body.errcode, body.error),
            None => format!("it answers with status {}", response.status().as_u16()),
        },
        status: Some(response.status().as_u16()),
        matrix: body.map(|body| (body.errcode, body.error)),
    }
}

/// An error with what caused it: reqwest's own words rarely say.
fn causes(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words = format!("{words}: {error}");
        cause = error.source();
    }
    words
}
