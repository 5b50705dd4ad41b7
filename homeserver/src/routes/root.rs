//! `/`: what a person sees who opens the server's address in a browser.

use axum::extract::State;
use services::Services;

/// `GET`: a few friendly lines.
pub async fn get(State(services): State<Services>) -> String {
    let url = &services.well_known.settings().client_url;
    format!(
        "This is VoiceChat, a Matrix homeserver with voice rooms.\n\n\
         It works. To use it, take a Matrix client (Element, for one) and give it this address as the homeserver:\n\n    \
         {url}\n\n\
         To try voice in this browser, open {url}/voice/check\n"
    )
}
