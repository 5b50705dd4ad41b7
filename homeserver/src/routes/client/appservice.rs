//! `/_matrix/client/v1/appservice/{appserviceId}/ping`

use ruma::api::client::appservice::request_ping::v1 as ping;
use services::{Error, Services};

use crate::routes::{
    call::{Call, Reply},
    error::ApiError,
};

/// `POST`: an application service asks whether we reach it.
pub async fn post_ping(services: Services, call: Call<ping::Request>) -> Reply<ping::Response> {
    let id = &call.request.appservice_id;
    if call.caller.appservice.as_deref() != Some(id.as_str()) {
        return Err(ApiError::forbidden("the token belongs to another application service"));
    }
    let transaction_id = call.request.transaction_id.as_ref().map(|id| id.as_str());
    match services.appservices.ping(id, transaction_id).await {
        Ok(took) => Ok(ping::Response::new(took)),
        Err(fault) => {
            let error = ApiError::from(Error::Specific(fault.code, fault.words));
            Err(match fault.answer {
                Some((status, body)) => error.and("status", status).and("body", body),
                None => error,
            })
        }
    }
}
