//! `/.well-known/matrix/…`

use axum::{Json, response::IntoResponse as _, response::Response};
use ruma::api::{
    client::discovery::{discover_homeserver as client, discover_support as support},
    federation::discovery::discover_homeserver as server,
};
use serde_json::{Map, Value, json};
use services::Services;

use super::{
    call::{Call, Endpoints, Reply},
    error::ApiError,
};

pub(super) fn endpoints(endpoints: Endpoints) -> Endpoints {
    endpoints
        .raw::<client::Request, _, _>(get_client, "homeserver::routes::well_known::get_client")
        .endpoint(get_server)
        .raw::<support::Request, _, _>(get_support, "homeserver::routes::well_known::get_support")
}

/// `GET client`: where clients go. Written here because the key of MSC4143 is not in ruma's stable types.
pub async fn get_client(services: Services, _: Call<client::Request>) -> Reply<Response> {
    let settings = services.well_known.settings();
    let mut document = json!({ "m.homeserver": { "base_url": settings.client_url } });
    if !settings.livekit_urls.is_empty() {
        let focus = |url: &String| json!({ "type": "livekit", "livekit_service_url": url });
        document["org.matrix.msc4143.rtc_foci"] = settings.livekit_urls.iter().map(focus).collect();
    }
    Ok(Json(document).into_response())
}

/// `GET server`: where other servers go.
pub async fn get_server(services: Services, _: Call<server::Request>) -> Reply<server::Response> {
    let delegate = services.well_known.settings().server.clone();
    delegate
        .map(server::Response::new)
        .ok_or_else(|| ApiError::not_found("other servers use port 8448 of the server name"))
}

/// `GET support`: whom to ask for help.
pub async fn get_support(services: Services, _: Call<support::Request>) -> Reply<Response> {
    let settings = services.well_known.settings();
    let mut contact = Map::new();
    for (key, value) in [("matrix_id", &settings.support_user), ("email_address", &settings.support_email)] {
        contact.extend(value.clone().map(|value| (key.to_owned(), Value::String(value))));
    }
    let mut document = Map::new();
    if !contact.is_empty() {
        contact.insert("role".to_owned(), "m.role.admin".into());
        document.insert("contacts".to_owned(), json!([contact]));
    }
    document.extend(settings.support_page.clone().map(|page| ("support_page".to_owned(), page.into())));
    if document.is_empty() {
        return Err(ApiError::not_found("nobody was named"));
    }
    Ok(Json(document).into_response())
}
