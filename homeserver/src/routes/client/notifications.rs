//! `/_matrix/client/v3/notifications`

use room::event::{RoomIdShown, Unsigned};
use ruma::{
    MilliSecondsSinceUnixEpoch,
    api::client::push::get_notifications::v3::{Notification, Request, Response},
    serde::Raw,
};
use serde_json::value::RawValue;
use services::{Services, push::notifications as found};

use crate::routes::{
    call::{Call, Reply},
    error::ApiError,
};

/// Notifications of a page when the client does not say.
const NOTIFICATIONS_DEFAULT: usize = 20;

/// `GET`: what the caller was notified of.
///
/// Spec: Client-Server API, "Listing Notifications".
pub async fn get(services: Services, call: Call<Request>) -> Reply<Response> {
    let Call { caller, request, .. } = call;
    let before = request
        .from
        .map(|token| token.parse::<i64>().map_err(|_| ApiError::invalid_param("from is no token of ours")))
        .transpose()?;
    let limit =
        request.limit.map_or(NOTIFICATIONS_DEFAULT, |limit| usize::try_from(u64::from(limit)).unwrap_or(usize::MAX));
    let only_highlights = request.only.as_deref() == Some("highlight");
    let page = services.push.notifications(&caller, before, limit, only_highlights).await?;
    let notifications = page.notifications.iter().map(shown).collect::<Result<_, _>>()?;
    let mut response = Response::new(notifications);
    response.next_token = page.next.map(|pos| pos.to_string());
    Ok(response)
}

fn shown(notification: &found::Notification) -> Result<Notification, ApiError> {
    let pdu = &notification.event.pdu;
    let mut json = Vec::new();
    pdu.write_client(&Unsigned::default(), RoomIdShown::No, &mut json);
    let json = String::from_utf8(json).map_err(ApiError::internal)?;
    let event = RawValue::from_string(json).map_err(ApiError::internal)?;
    let actions = serde_json::from_str(&notification.outcome.actions).map_err(ApiError::internal)?;
    let ts = MilliSecondsSinceUnixEpoch(pdu.origin_server_ts.0);
    Ok(Notification::new(actions, Raw::from_json(event), notification.is_read, pdu.room_id.clone(), ts))
}
