//! The Matrix homeserver: routes over [`services`].

pub mod routes;

use axum::Router;
use services::Services;

/// The whole HTTP interface, for a listener or for tests.
pub fn app(services: Services) -> Router {
    routes::endpoints().into_router(services)
}
