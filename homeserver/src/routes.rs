//! The table of endpoints, in the order of the specification: a line each.
//!
//! An endpoint's file follows from its path: drop `/_matrix`, the version and every `{placeholder}`; what is left is the file
//! (`tests/house.rs` holds us to it). The function is the HTTP verb, or verb and noun where a file has several.

pub mod call;
pub mod client;
pub mod error;
pub mod federation;
pub mod interactive;
pub mod limits;
pub mod media;
pub mod page;
pub mod restricted;
pub mod synapse_admin;
pub mod terms;

use call::Endpoints;

/// Every endpoint of this server.
#[must_use]
pub fn endpoints() -> Endpoints {
    let endpoints = Endpoints::default();
    let endpoints = client::endpoints(endpoints);
    let endpoints = media::endpoints(endpoints);
    let endpoints = federation::endpoints(endpoints);
    endpoints
        .plain(synapse_admin::PATH, axum::routing::get(synapse_admin::get).post(synapse_admin::post))
        .plain(terms::PATH, axum::routing::get(terms::get))
}
