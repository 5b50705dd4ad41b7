//! The table of endpoints, in the order of the specification: a line each.
//!
//! An endpoint's file follows from its path: drop `/_matrix`, the version and every `{placeholder}`; what is left is the file
//! (`tests/house.rs` holds us to it). The function is the HTTP verb, or verb and noun where a file has several.

mod body;
pub mod call;
pub mod client;
pub mod error;
pub mod federation;
pub mod health;
pub mod interactive;
pub mod key;
pub mod limits;
pub mod media;
pub mod page;
pub mod restricted;
pub mod root;
pub mod synapse_admin;
pub mod terms;
pub mod welcome;
pub mod well_known;

use axum::routing::get;
use call::Endpoints;

/// Every endpoint of this server.
#[must_use]
pub fn endpoints() -> Endpoints {
    let endpoints = Endpoints::default().plain("/", get(root::get)).plain("/health", get(health::get));
    let endpoints = well_known::endpoints(endpoints);
    let endpoints = client::endpoints(endpoints);
    let endpoints = media::endpoints(endpoints);
    let endpoints = federation::endpoints(endpoints);
    let endpoints = key::endpoints(endpoints);
    endpoints
        .plain(synapse_admin::PATH, get(synapse_admin::get).post(synapse_admin::post))
        .plain(terms::PATH, get(terms::get))
        .plain(welcome::PATH, get(welcome::get).post(welcome::post))
}
