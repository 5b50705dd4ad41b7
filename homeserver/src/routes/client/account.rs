//! `/_matrix/client/v3/account/…`
//!
//! Third-party identifiers are not kept here: nothing is ever sent to an address, and the list is empty.

use ruma::api::client::account::{
    ThirdPartyIdRemovalStatus, add_3pid::v3 as add_3pid, bind_3pid::v3 as bind_3pid,
    change_password::v3 as change_password, deactivate::v3 as deactivate, delete_3pid::v3 as delete_3pid,
    get_3pids::v3 as get_3pids, request_3pid_management_token_via_email::v3 as email,
    request_3pid_management_token_via_msisdn::v3 as msisdn,
    request_password_change_token_via_email::v3 as password_email,
    request_password_change_token_via_msisdn::v3 as password_msisdn, unbind_3pid::v3 as unbind_3pid,
    whoami::v3 as whoami,
};
use services::{
    Services,
    error::{Code, Error},
};

use crate::routes::{
    call::{Call, Reply},
    error::{ApiError, missing_token},
    interactive::{Interactive, prove},
};

/// Why no address can be used.
#[must_use]
pub fn third_party_denied() -> ApiError {
    Error::Specific(Code::ThreepidDenied, "this server keeps no third-party identifiers".into()).into()
}

/// `POST …/password`: set another password; other devices are logged out unless the client says otherwise.
pub async fn post_password(
    services: Services,
    call: Call<Interactive<change_password::Request>>,
) -> Reply<change_password::Response> {
    let Interactive { request, auth } = call.request;
    // Without a token there is only the way by e-mail, which we do not have.
    let caller = call.caller.ok_or_else(missing_token)?;
    services.accounts.passwords.check_strength(&request.new_password)?;
    prove(&services, &caller, "change the password", auth.as_ref()).await?;
    services.accounts.set_password(caller.nid, &request.new_password).await?;
    if request.logout_devices {
        services.devices.delete_all(caller.nid, caller.device_id.as_deref()).await?;
    }
    Ok(change_password::Response::new())
}

/// `POST …/password/email/requestToken`
pub async fn post_password_email_token(
    _: Services,
    _: Call<password_email::Request>,
) -> Reply<password_email::Response> {
    Err(third_party_denied())
}

/// `POST …/password/msisdn/requestToken`
pub async fn post_password_msisdn_token(
    _: Services,
    _: Call<password_msisdn::Request>,
) -> Reply<password_msisdn::Response> {
    Err(third_party_denied())
}

/// `POST …/deactivate`: end the caller's account.
pub async fn post_deactivate(
    services: Services,
    call: Call<Interactive<deactivate::Request>>,
) -> Reply<deactivate::Response> {
    let Interactive { request, auth } = call.request;
    let caller = call.caller.ok_or_else(missing_token)?;
    prove(&services, &caller, "deactivate the account", auth.as_ref()).await?;
    services.devices.delete_all(caller.nid, None).await?;
    services.accounts.deactivate(&caller.user_id, request.erase).await?;
    services.keys.forget_user(caller.nid).await?;
    services.rooms.leave_all(&caller.user_id, caller.nid).await?;
    // There was nothing to unbind.
    Ok(deactivate::Response::new(ThirdPartyIdRemovalStatus::Success))
}

/// `GET …/whoami`
pub async fn get_whoami(_: Services, call: Call<whoami::Request>) -> Reply<whoami::Response> {
    let mut response = whoami::Response::new(call.caller.user_id, call.caller.is_guest);
    response.device_id = call.caller.device_id;
    Ok(response)
}

/// `GET …/3pid`: none.
pub async fn get_3pid(_: Services, _: Call<get_3pids::Request>) -> Reply<get_3pids::Response> {
    Ok(get_3pids::Response::new(Vec::new()))
}

/// `POST …/3pid/add`
pub async fn post_3pid_add(_: Services, _: Call<Interactive<add_3pid::Request>>) -> Reply<add_3pid::Response> {
    Err(third_party_denied())
}

/// `POST …/3pid/bind`
pub async fn post_3pid_bind(_: Services, _: Call<bind_3pid::Request>) -> Reply<bind_3pid::Response> {
    Err(third_party_denied())
}

/// `POST …/3pid/delete`
pub async fn post_3pid_delete(_: Services, _: Call<delete_3pid::Request>) -> Reply<delete_3pid::Response> {
    Ok(delete_3pid::Response::new(ThirdPartyIdRemovalStatus::NoSupport))
}

/// `POST …/3pid/unbind`
pub async fn post_3pid_unbind(_: Services, _: Call<unbind_3pid::Request>) -> Reply<unbind_3pid::Response> {
    Ok(unbind_3pid::Response::new(ThirdPartyIdRemovalStatus::NoSupport))
}

/// `POST …/3pid/email/requestToken`
pub async fn post_3pid_email_token(_: Services, _: Call<email::Request>) -> Reply<email::Response> {
    Err(third_party_denied())
}

/// `POST …/3pid/msisdn/requestToken`
pub async fn post_3pid_msisdn_token(_: Services, _: Call<msisdn::Request>) -> Reply<msisdn::Response> {
    Err(third_party_denied())
}
