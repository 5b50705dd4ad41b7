//! `/voice/check`: a page that joins a voice room from a browser. What a newcomer tries first, and what tests drive.
//!
//! Put together from the files in `check/`, nothing loaded from elsewhere. Its policy allows requests to any homeserver,
//! because the page may be served by a voice service whose homeserver has another origin; scripts and styles only as they
//! stand in the page, which carries a fresh nonce each time.

use std::sync::LazyLock;

use axum::{
    Router,
    http::{
        HeaderName, HeaderValue,
        header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS},
    },
    response::IntoResponse,
    routing::get,
};
use rand::RngCore as _;

use crate::sfu::demux::base32;

const SCRIPT: &str =
    concat!(include_str!("check/matrix.js"), "\n", include_str!("check/call.js"), "\n", include_str!("check/page.js"));
/// The page with its style and script, but for the nonce.
static PAGE: LazyLock<String> = LazyLock::new(|| {
    include_str!("check/page.html")
        .replace("STYLE_OF_THE_PAGE", include_str!("check/page.css"))
        .replace("SCRIPT_OF_THE_PAGE", SCRIPT)
});
/// Stands in the page where the nonce belongs.
const NONCE: &str = "NONCE_OF_THIS_RESPONSE";

const HEADERS: [(HeaderName, HeaderValue); 4] = [
    (CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (CACHE_CONTROL, HeaderValue::from_static("no-store")),
];

pub(crate) fn routes() -> Router {
    Router::new().route("/voice/check", get(page))
}

async fn page() -> impl IntoResponse {
    let mut random = [0; 16];
    rand::rng().fill_bytes(&mut random);
    let nonce = base32(&random);
    (HEADERS, [(CONTENT_SECURITY_POLICY, policy(&nonce))], PAGE.replace(NONCE, &nonce))
}

fn policy(nonce: &str) -> String {
    format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; \
         connect-src 'self' https: wss: http://localhost:* http://127.0.0.1:* ws://localhost:* ws://127.0.0.1:*; \
         media-src blob:; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_brings_everything_along_and_marks_its_script_and_style() {
        assert_eq!(PAGE.matches(NONCE).count(), 2, "one script and one style");
        assert!(!PAGE.contains("_OF_THE_PAGE"), "style and script are in their places");
        assert!(!PAGE.contains("src=\"http") && !PAGE.contains("href=\"http") && !PAGE.contains("style=\""));
        assert!(!PAGE.contains("innerHTML"), "names come from strangers");
    }
}
