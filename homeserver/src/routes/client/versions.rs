//! `/_matrix/client/versions`

use ruma::api::client::discovery::get_supported_versions as versions;
use services::Services;

use crate::routes::call::{Call, Reply};

/// Versions of the specification whose clients are served: the first releases by name, then every `v1.n` up to the newest.
const EARLY_VERSIONS: [&str; 8] = ["r0.0.1", "r0.1.0", "r0.2.0", "r0.3.0", "r0.4.0", "r0.5.0", "r0.6.0", "r0.6.1"];
/// The newest of the `v1.n`.
const NEWEST_MINOR: u32 = 19;

/// Features outside those versions, or known to clients by their older names.
const UNSTABLE_FEATURES: [&str; 10] = [
    "org.matrix.e2e_cross_signing",
    "org.matrix.msc2285.stable",
    "org.matrix.msc3391",
    "org.matrix.msc3440.stable",
    "org.matrix.msc3771",
    "org.matrix.msc3773",
    "org.matrix.msc3814",
    "org.matrix.msc3827.stable",
    "org.matrix.msc4133",
    "org.matrix.msc4222",
];

/// `GET`: which clients may talk to us.
pub async fn get(_: Services, _: Call<versions::Request>) -> Reply<versions::Response> {
    let early = EARLY_VERSIONS.into_iter().map(ToOwned::to_owned);
    let versions = early.chain((1..=NEWEST_MINOR).map(|minor| format!("v1.{minor}"))).collect();
    let mut response = versions::Response::new(versions);
    response.unstable_features = UNSTABLE_FEATURES.into_iter().map(|name| (name.to_owned(), true)).collect();
    Ok(response)
}
