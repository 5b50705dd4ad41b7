//! From an HTTP request to a typed call, and back.
//!
//! A handler is a plain function `async fn(Services, Call<R>) -> Reply<R::OutgoingResponse>`. Method, every path (r0, v3, unstable)
//! and the kind of authentication come from ruma's metadata of `R`; what the handler receives as [`Call::caller`] follows from
//! the latter ([`Identify`]), so authentication cannot be forgotten:
//!
//! | authentication in ruma | `caller` |
//! |---|---|
//! | `AccessToken` | [`User`] |
//! | `AccessTokenOptional`, `AppserviceTokenOptional` | `Option<User>` |
//! | `AppserviceToken` | [`User`], of an application service |
//! | `ServerSignatures` | [`Peer`] |
//! | `NoAuthentication`, `NoAccessToken` | `()` |

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{ConnectInfo, FromRequestParts as _, Path, Request},
    handler::Handler,
    http::{HeaderMap, header, request::Parts},
    response::{IntoResponse, Response},
    routing::{MethodFilter, on},
};
use futures_util::future::BoxFuture;
use ruma::{
    OwnedServerName,
    api::{
        IncomingRequest, IncomingRequestExt as _, Metadata, OutgoingResponseExt as _,
        auth_scheme::{
            AccessToken, AccessTokenOptional, AppserviceToken, AppserviceTokenOptional, AuthScheme, NoAccessToken,
            NoAuthentication,
        },
        federation::authentication::ServerSignatures,
        path_builder::PathBuilder as _,
    },
};
use services::{
    Services,
    accounts::{Masquerade, User},
};
use tokio::sync::SemaphorePermit;

use super::{
    body,
    error::{ApiError, missing_token},
    limits::{BODY_BYTES_MAX, FEDERATION_BODY_BYTES_MAX},
    restricted,
};

/// What a handler returns.
pub type Reply<T> = Result<T, ApiError>;

/// A decoded request, who proved to have sent it, and from where.
#[derive(Debug)]
pub struct Call<R: Called> {
    /// The request.
    pub request: R,
    /// Who sent it.
    pub caller: R::Caller,
    /// The address it came from, behind our own proxies.
    pub address: IpAddr,
    /// The `User-Agent` header.
    pub user_agent: Option<String>,
    /// The path's arguments as they came: ruma's enums call some event types by other names.
    pub arguments: Vec<String>,
    /// The body as it came, for the few endpoints whose exact words matter.
    pub body: Bytes,
    /// The query string, for parameters ruma does not know.
    pub query: Option<String>,
}

/// A request whose body the handler reads itself, as it comes (uploads), or whose headers matter (ranges of downloads).
#[derive(Debug)]
pub struct Streamed<R: Called> {
    /// The request; a body that ruma would hold is empty in it.
    pub request: R,
    /// Who sent it.
    pub caller: R::Caller,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Body,
}

/// A server that proved its name by its signature.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its name.
    pub server: OwnedServerName,
}

/// A request type with the caller its authentication proves.
pub trait Called: Metadata {
    /// See the table in the module's description.
    type Caller: Send;
}

impl<R: Metadata> Called for R
where
    R::Authentication: Identify,
{
    type Caller = <R::Authentication as Identify>::Caller;
}

/// Everything of a request but its body.
#[derive(Debug)]
pub struct Head {
    parts: Parts,
}

/// Who a request of this authentication comes from.
pub trait Identify: AuthScheme {
    /// What the handler receives.
    type Caller: Send;

    /// Check the proof.
    fn identify(
        services: &Services,
        head: &Head,
        body: &Bytes,
    ) -> impl Future<Output = Result<Self::Caller, ApiError>> + Send;
}

impl Identify for NoAuthentication {
    type Caller = ();
    async fn identify(_: &Services, _: &Head, _: &Bytes) -> Result<(), ApiError> {
        Ok(())
    }
}

impl Identify for NoAccessToken {
    type Caller = ();
    async fn identify(_: &Services, _: &Head, _: &Bytes) -> Result<(), ApiError> {
        Ok(())
    }
}

impl Identify for AccessToken {
    type Caller = User;
    async fn identify(services: &Services, head: &Head, _: &Bytes) -> Result<User, ApiError> {
        user(services, &head.parts).await?.ok_or_else(missing_token)
    }
}

impl Identify for AccessTokenOptional {
    type Caller = Option<User>;
    async fn identify(services: &Services, head: &Head, _: &Bytes) -> Result<Option<User>, ApiError> {
        user(services, &head.parts).await
    }
}

impl Identify for AppserviceToken {
    type Caller = User;
    async fn identify(services: &Services, head: &Head, _: &Bytes) -> Result<User, ApiError> {
        let user = user(services, &head.parts).await?.ok_or_else(missing_token)?;
        if user.appservice.is_none() {
            return Err(ApiError::forbidden("only application services may do this"));
        }
        Ok(user)
    }
}

impl Identify for AppserviceTokenOptional {
    type Caller = Option<User>;
    /// A token that is not an application service's means nothing here: clients send their old one when they log in again.
    async fn identify(services: &Services, head: &Head, _: &Bytes) -> Result<Option<User>, ApiError> {
        let token = token(&head.parts.headers, head.parts.uri.query());
        match token.filter(|token| services.accounts.tokens.appservices().by_token(token).is_some()) {
            // Whom it logs in or registers stands in the body.
            Some(token) => Ok(Some(services.accounts.authenticate(&token, &Masquerade::default()).await?)),
            None => Ok(None),
        }
    }
}

impl Identify for ServerSignatures {
    type Caller = Peer;
    async fn identify(services: &Services, head: &Head, body: &Bytes) -> Result<Peer, ApiError> {
        let mut request = axum::http::Request::new(body.as_ref());
        *request.method_mut() = head.parts.method.clone();
        *request.uri_mut() = head.parts.uri.clone();
        *request.headers_mut() = head.parts.headers.clone();
        let server = services.federation.authenticate(&request).await?;
        Ok(Peer { server })
    }
}

/// The user whose access token a request carries; `None` without a token.
///
/// # Errors
/// `M_UNKNOWN_TOKEN` and what else [`services::accounts::Accounts::authenticate`] refuses.
pub async fn user(services: &Services, parts: &Parts) -> Result<Option<User>, ApiError> {
    let Some(token) = token(&parts.headers, parts.uri.query()) else { return Ok(None) };
    let masquerade = Masquerade {
        user_id: query_value(parts.uri.query(), "user_id"),
        device_id: query_value(parts.uri.query(), "device_id")
            .or_else(|| query_value(parts.uri.query(), "org.matrix.msc3202.device_id")),
    };
    let user = services.accounts.authenticate(&token, &masquerade).await?;
    restricted::check(&user, &parts.method, parts.uri.path())?;
    let agent = parts.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
    services.devices.seen(&user, address(parts), agent);
    Ok(Some(user))
}

/// The access token of a request: header first, then the query older clients use.
fn token(headers: &HeaderMap, query: Option<&str>) -> Option<String> {
    let header = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if let Some((scheme, token)) = header.and_then(|value| value.split_once(' '))
        && scheme.eq_ignore_ascii_case("bearer")
    {
        return Some(token.trim().to_owned());
    }
    query_value(query, "access_token")
}

/// A parameter of a query string.
#[must_use]
pub fn query_value(query: Option<&str>, name: &str) -> Option<String> {
    url::form_urlencoded::parse(query?.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

/// The address a request came from; what proxies say of it was settled on the way here (`serve`).
fn address(parts: &Parts) -> IpAddr {
    let origin = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    origin.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}

/// An endpoint for the router: one type for all of them, so that the router's own machinery is compiled once and not for each.
#[derive(Clone)]
struct Route(Arc<dyn Fn(Services, Request) -> BoxFuture<'static, Response> + Send + Sync>);

impl Route {
    fn new(serve: impl Fn(Services, Request) -> BoxFuture<'static, Response> + Send + Sync + 'static) -> Self {
        Self(Arc::new(serve))
    }
}

impl Handler<(), Services> for Route {
    type Future = BoxFuture<'static, Response>;

    fn call(self, request: Request, services: Services) -> Self::Future {
        (self.0)(services, request)
    }
}

/// The endpoints of the server, being put together.
#[derive(Debug, Default)]
pub struct Endpoints {
    router: Router<Services>,
    /// Method and path of each endpoint, and the module its handler stands in.
    pub served: Vec<(String, &'static str, &'static str)>,
}

impl Endpoints {
    /// Serve `R` by `handler` under every path that ruma knows for it.
    #[must_use]
    pub fn endpoint<R, F, Fut>(self, handler: F) -> Self
    where
        R: IncomingRequest<OutgoingResponse: Send> + Called + Send + 'static,
        R::Authentication: Identify<Caller = R::Caller>,
        F: Fn(Services, Call<R>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Reply<R::OutgoingResponse>> + Send + 'static,
    {
        self.raw::<R, _, _>(
            move |services, call| {
                let reply = handler(services, call);
                async move {
                    let response = reply.await?.try_into_http_response::<Vec<u8>>();
                    response.map(|r| r.map(Body::from)).map_err(ApiError::internal)
                }
            },
            std::any::type_name::<F>(),
        )
    }

    /// Serve `R` by a handler that writes the response itself (streams, pre-written JSON). `name` is the handler's path.
    #[must_use]
    pub fn raw<R, F, Fut>(mut self, handler: F, name: &'static str) -> Self
    where
        R: IncomingRequest + Called + Send + 'static,
        R::Authentication: Identify<Caller = R::Caller>,
        F: Fn(Services, Call<R>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Reply<Response>> + Send + 'static,
    {
        for path in R::PATH_BUILDER.all_paths() {
            self = self.raw_under::<R, _, _>(path, handler.clone(), name);
        }
        self
    }

    /// Serve `R` under a path, which may be one that ruma does not know but whose requests are the same.
    #[must_use]
    pub fn raw_under<R, F, Fut>(mut self, path: &'static str, handler: F, name: &'static str) -> Self
    where
        R: IncomingRequest + Called + Send + 'static,
        R::Authentication: Identify<Caller = R::Caller>,
        F: Fn(Services, Call<R>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Reply<Response>> + Send + 'static,
    {
        let method = MethodFilter::try_from(R::METHOD).expect("ruma uses methods that axum routes");
        let arity = path.matches('{').count();
        let service = Route::new(move |services, request| {
            let handler = handler.clone();
            Box::pin(async move {
                let (call, _room) = match decode::<R>(&services, request, arity).await {
                    Ok(decoded) => decoded,
                    Err(error) => return error.into_response(),
                };
                handler(services, call).await.unwrap_or_else(IntoResponse::into_response)
            })
        });
        self.served.push((R::METHOD.to_string(), path, name));
        // An empty state key may be written with or without its slash.
        if let Some(stem) = path.strip_suffix("/{state_key}") {
            self.router = self.router.route(stem, on(method, service.clone()));
            self.router = self.router.route(&format!("{stem}/"), on(method, service.clone()));
        }
        self.router = self.router.route(path, on(method, service));
        self
    }

    /// Serve `R` by a handler that also reads the body itself. `name` is the handler's path.
    #[must_use]
    pub fn streamed<R, F, Fut>(mut self, handler: F, name: &'static str) -> Self
    where
        R: IncomingRequest + Called + Send + 'static,
        R::Authentication: Identify<Caller = R::Caller>,
        F: Fn(Services, Streamed<R>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Reply<Response>> + Send + 'static,
    {
        let method = MethodFilter::try_from(R::METHOD).expect("ruma uses methods that axum routes");
        for path in R::PATH_BUILDER.all_paths() {
            let handler = handler.clone();
            let service = Route::new(move |services, request| {
                let handler = handler.clone();
                Box::pin(async move {
                    let call = match decode_head::<R>(&services, request).await {
                        Ok(call) => call,
                        Err(error) => return error.into_response(),
                    };
                    handler(services, call).await.unwrap_or_else(IntoResponse::into_response)
                })
            });
            self.served.push((R::METHOD.to_string(), path, name));
            self.router = self.router.route(path, on(method, service));
        }
        self
    }

    /// Serve a path of our own, or one ruma does not describe.
    #[must_use]
    pub fn plain(mut self, path: &str, route: axum::routing::MethodRouter<Services>) -> Self {
        self.router = self.router.route(path, route);
        self
    }

    /// The router; unknown paths and methods get the specification's errors.
    pub fn into_router(self, services: Services) -> Router {
        self.router
            .fallback(|| async { ApiError::unrecognized(axum::http::StatusCode::NOT_FOUND) })
            .method_not_allowed_fallback(|| async {
                ApiError::unrecognized(axum::http::StatusCode::METHOD_NOT_ALLOWED)
            })
            .with_state(services)
    }
}

/// A request as its handler gets it, and the room in memory its body takes.
async fn decode<R>(
    services: &Services,
    request: Request,
    arity: usize,
) -> Result<(Call<R>, Option<SemaphorePermit<'static>>), ApiError>
where
    R: IncomingRequest + Called,
    R::Authentication: Identify<Caller = R::Caller>,
{
    let (mut parts, body) = request.into_parts();
    let Path(mut arguments) = Path::<Vec<String>>::from_request_parts(&mut parts, services)
        .await
        .map_err(|error| ApiError::invalid_param(error.to_string()))?;
    arguments.resize(arity, String::new());
    let is_federation = parts.uri.path().starts_with("/_matrix/federation/");
    let bytes_max = if is_federation { FEDERATION_BODY_BYTES_MAX } else { BODY_BYTES_MAX };
    let (body, room) = body::read(body, bytes_max).await?;
    let address = address(&parts);
    let user_agent = parts.headers.get(header::USER_AGENT).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let query = parts.uri.query().map(str::to_owned);
    let head = Head { parts };
    let caller = R::Authentication::identify(services, &head, &body).await?;

    let path_args: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let content = if body.is_empty() { b"{}".as_slice() } else { &body };
    let request = axum::http::Request::from_parts(head.parts, content);
    let request =
        R::try_from_http_request(request, &path_args).map_err(|error| ApiError::bad_request(&error, content))?;
    Ok((Call { request, caller, address, user_agent, arguments, body, query }, room))
}

async fn decode_head<R>(services: &Services, request: Request) -> Result<Streamed<R>, ApiError>
where
    R: IncomingRequest + Called,
    R::Authentication: Identify<Caller = R::Caller>,
{
    let (mut parts, body) = request.into_parts();
    let Path(arguments) = Path::<Vec<String>>::from_request_parts(&mut parts, services)
        .await
        .map_err(|error| ApiError::invalid_param(error.to_string()))?;
    let head = Head { parts };
    let caller = R::Authentication::identify(services, &head, &Bytes::new()).await?;
    let headers = head.parts.headers.clone();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let request = axum::http::Request::from_parts(head.parts, b"".as_slice());
    let request =
        R::try_from_http_request(request, &arguments).map_err(|error| ApiError::bad_request(&error, b"{}"))?;
    Ok(Streamed { request, caller, headers, body })
}
