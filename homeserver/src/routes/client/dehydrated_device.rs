//! `/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device`: a device that receives while nobody is logged in.

use ruma::{
    api::client::dehydrated_device::{
        delete_dehydrated_device::unstable as delete, get_dehydrated_device::unstable as get,
        get_events::unstable as events, put_dehydrated_device::unstable as put,
    },
    serde::Raw,
};
use services::{Services, keys::dehydrated::Dehydration};

use crate::routes::call::{Call, Reply};

/// `PUT`: store a dehydrated device in place of the last one.
pub async fn put(services: Services, call: Call<put::Request>) -> Reply<put::Response> {
    let device = Dehydration {
        device_id: call.request.device_id,
        device_data: call.request.device_data.into_json(),
        device_keys: call.request.device_keys,
        one_time_keys: call.request.one_time_keys,
        fallback_keys: call.request.fallback_keys,
    };
    services.keys.dehydrate(&call.caller, &device).await?;
    Ok(put::Response::new(device.device_id))
}

/// `GET`: the device, to bring it back to life.
pub async fn get(services: Services, call: Call<get::Request>) -> Reply<get::Response> {
    let (device_id, data) = services.keys.dehydrated(&call.caller).await?;
    Ok(get::Response::new(device_id, Raw::from_json(data)))
}

/// `DELETE`: delete the device.
pub async fn delete(services: Services, call: Call<delete::Request>) -> Reply<delete::Response> {
    let device_id = services.keys.delete_dehydrated(&call.caller).await?;
    Ok(delete::Response::new(device_id))
}

/// `POST …/{deviceId}/events`: the messages it received.
pub async fn post_events(services: Services, call: Call<events::Request>) -> Reply<events::Response> {
    let events::Request { device_id, next_batch, .. } = call.request;
    let waiting = services.keys.dehydrated_events(&call.caller, &device_id, next_batch.as_deref()).await?;
    let mut response = events::Response::new(waiting.events.into_iter().map(Raw::from_json).collect());
    response.next_batch = waiting.next_batch;
    Ok(response)
}
