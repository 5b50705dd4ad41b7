//! `/_matrix/client/v3/pushers` and `…/pushers/set`

use ruma::api::client::push::{
    Pusher, PusherKind,
    get_pushers::v3 as get_pushers,
    set_pusher::v3::{self as set_pusher, PusherAction},
};
use services::{Services, push::NewPusher};

use crate::routes::{
    call::{Call, Reply},
    error::ApiError,
};

/// `GET`: the caller's pushers.
///
/// Spec: Client-Server API, "Push Notifications".
pub async fn get(services: Services, call: Call<get_pushers::Request>) -> Reply<get_pushers::Response> {
    let pushers = services.push.pushers(&call.caller).await?;
    let pushers: Result<Vec<Pusher>, _> = pushers.iter().map(|pusher| serde_json::from_str(&pusher.body)).collect();
    Ok(get_pushers::Response::new(pushers.map_err(ApiError::internal)?))
}

/// `POST …/set`: set or remove a pusher.
///
/// Spec: Client-Server API, "Push Notifications".
pub async fn post_set(services: Services, call: Call<set_pusher::Request>) -> Reply<set_pusher::Response> {
    match call.request.action {
        PusherAction::Post(wanted) => {
            let body = serde_json::to_value(&wanted.pusher).map_err(ApiError::internal)?;
            let kind = body.get("kind").and_then(|kind| kind.as_str()).unwrap_or_default().to_owned();
            let url = match &wanted.pusher.kind {
                PusherKind::Http(data) => data.url.clone(),
                _ => String::new(),
            };
            let ids = wanted.pusher.ids;
            let (app_id, pushkey, append) = (ids.app_id, ids.pushkey, wanted.append);
            let pusher = NewPusher { app_id, pushkey, kind, url, body: body.to_string(), append };
            services.push.put_pusher(&call.caller, pusher).await?;
        }
        PusherAction::Delete(ids) => services.push.delete_pusher(&call.caller, &ids.app_id, &ids.pushkey).await?,
        _ => return Err(ApiError::invalid_param("a pusher is set or removed")),
    }
    Ok(set_pusher::Response::new())
}
