//! `/health`: for whoever watches this process.

use services::Services;

/// `GET`: 200 once requests are answered.
pub async fn get(_: axum::extract::State<Services>) -> &'static str {
    "OK"
}
