//! What every request passes before it meets the router.

use std::{any::Any, net::SocketAddr, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, Request},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
};
use tower::ServiceBuilder;
use tower_http::{
    CompressionLevel,
    catch_panic::CatchPanicLayer,
    compression::{CompressionLayer, predicate::Predicate},
    cors::{AllowOrigin, CorsLayer},
    set_header::SetResponseHeaderLayer,
    timeout::RequestBodyTimeoutLayer,
    trace::TraceLayer,
};
use tracing::Span;

use super::{FINISH_WITHIN, Settings, Stopping};
use crate::routes::{
    error::ApiError,
    limits::{REQUEST_TIMEOUT, UPLOAD_TIMEOUT},
};

/// Bodies smaller than this are not worth compressing.
const COMPRESSED_BYTES_MIN: u64 = 1024;
/// How long a browser may remember what CORS allows.
const CORS_MAX_AGE: Duration = Duration::from_secs(86_400);
/// What we call ourselves.
const SERVER: &str = concat!("VoiceChat/", env!("CARGO_PKG_VERSION"));

/// Wrap the router. The last layer is the outermost.
pub(super) fn around(router: Router, settings: &Settings, stopping: &Stopping) -> Router {
    let proxies = settings.trusted_proxies.clone();
    let stopping = stopping.clone();
    let inner = ServiceBuilder::new()
        .layer(CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(WorthIt))
        .layer(RequestBodyTimeoutLayer::new(settings.body_pause_max));
    let outer = ServiceBuilder::new()
        .layer(TraceLayer::new_for_http().make_span_with(span).on_request(()).on_response(log).on_failure(()))
        .layer(SetResponseHeaderLayer::overriding(header::SERVER, HeaderValue::from_static(SERVER)))
        .layer(cors())
        .layer(CatchPanicLayer::custom(panicked));
    router
        .layer(inner)
        .layer(middleware::from_fn(move |request: Request, next: Next| deadline(stopping.clone(), request, next)))
        .layer(outer)
        .layer(middleware::from_fn(move |mut request: Request, next: Next| {
            proxies.resolve(&mut request);
            next.run(request)
        }))
}

/// What the log says of a request: never the query, which may hold tokens.
fn span(request: &Request) -> Span {
    let address = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    tracing::debug_span!("request", method = %request.method(), path = request.uri().path(), address = ?address)
}

fn log<B>(response: &axum::http::Response<B>, took: Duration, _: &Span) {
    let ms = took.as_millis();
    if response.status().is_server_error() {
        tracing::warn!(status = response.status().as_u16(), ms, "answered");
    } else {
        tracing::debug!(status = response.status().as_u16(), ms, "answered");
    }
}

/// Client-Server API, "Web Browser Clients": every endpoint answers preflights, and any page may ask.
fn cors() -> CorsLayer {
    CorsLayer::new()
        .allow_origin(AllowOrigin::any())
        .allow_methods([
            Method::GET,
            Method::HEAD,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
            Method::OPTIONS,
        ])
        .allow_headers([
            header::HeaderName::from_static("x-requested-with"),
            header::CONTENT_TYPE,
            header::AUTHORIZATION,
            header::DATE,
        ])
        .max_age(CORS_MAX_AGE)
}

/// A handler's panic is our fault, not the connection's end.
fn panicked(cause: Box<dyn Any + Send + 'static>) -> Response<Body> {
    let words = cause
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| cause.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without words");
    ApiError::internal(words).into_response()
}

/// An answer in time: within the request's own limit, and soon when the server stops.
async fn deadline(stopping: Stopping, request: Request, next: Next) -> Response {
    // A socket that changes its protocol has no end of its own.
    if request.headers().contains_key(header::UPGRADE) {
        return next.run(request).await;
    }
    let limit = if is_upload(&request) { UPLOAD_TIMEOUT } else { REQUEST_TIMEOUT };
    let stopped = async {
        stopping.begun().await;
        tokio::time::sleep(FINISH_WITHIN).await;
    };
    tokio::select! {
        answer = tokio::time::timeout(limit, next.run(request)) => answer.unwrap_or_else(|_| {
            ApiError::new(StatusCode::REQUEST_TIMEOUT, "M_UNKNOWN", "the request took too long").into_response()
        }),
        () = stopped => {
            let mut answer = ApiError::from(services::Error::Stopping).into_response();
            answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(1));
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            answer
        }
    }
}

fn is_upload(request: &Request) -> bool {
    let path = request.uri().path();
    path.starts_with("/_matrix/media/") || path.starts_with("/_matrix/client/v1/media/")
}

/// Text of some length, unless the handler encoded it already.
#[derive(Debug, Clone, Copy)]
struct WorthIt;

impl Predicate for WorthIt {
    fn should_compress<B: axum::body::HttpBody>(&self, response: &axum::http::Response<B>) -> bool {
        let is_long = response.body().size_hint().upper().is_none_or(|bytes| bytes >= COMPRESSED_BYTES_MIN);
        is_long && is_text(response.headers())
    }
}

fn is_text(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    // Uploaded texts come with a disposition; compressing them beside secrets helps whoever measures lengths.
    let is_file = headers.contains_key(header::CONTENT_DISPOSITION);
    !is_file && ["application/json", "text/html", "text/plain"].iter().any(|text| kind.starts_with(text))
}
