//! The Matrix homeserver: routes over [`services`], its configuration and its listeners.

pub mod config;
pub mod routes;
pub mod serve;
pub mod start;

use axum::Router;
use services::Services;

/// The whole HTTP interface, for a listener or for tests.
pub fn app(services: Services) -> Router {
    routes::endpoints().into_router(services)
}
