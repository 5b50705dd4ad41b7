//! The table of endpoints, in the order of the specification: a line each.
//!
//! An endpoint's file follows from its path: drop `/_matrix`, the version and every `{placeholder}`; what is left is the file
//! (`tests/house.rs` holds us to it). The function is the HTTP verb, or verb and noun where a file has several.

pub mod call;
pub mod client;
pub mod error;
pub mod federation;
pub mod key;
pub mod limits;

use call::Endpoints;

/// Every endpoint of this server.
#[must_use]
pub fn endpoints() -> Endpoints {
    let endpoints = Endpoints::default();
    let endpoints = client::endpoints(endpoints);
    let endpoints = federation::endpoints(endpoints);
    key::endpoints(endpoints)
}
