//! `/_matrix/client/v3/users/{userId}/report`

use ruma::api::client::reporting::report_user::v3 as report;
use services::Services;

use crate::routes::call::{Call, Reply};

/// `POST`: tell the administrators about a user.
///
/// Spec: Client-Server API, "Reporting Content".
pub async fn post_report(services: Services, call: Call<report::Request>) -> Reply<report::Response> {
    services.reports.user(&call.caller, &call.request.user_id, &call.request.reason).await?;
    Ok(report::Response::new())
}
