//! `/_matrix/client/v3/keys/…`: public keys of devices and users.

use std::collections::BTreeMap;

use ruma::{
    UInt,
    api::client::keys::{
        claim_keys::v3 as claim, get_key_changes::v3 as changes, get_keys::v3 as query, upload_keys::v3 as upload,
        upload_signatures::v3 as signatures, upload_signing_keys::v3 as device_signing,
    },
};
use serde_json::json;
use services::{
    Services,
    keys::{
        cross_signing::{Identity, Published},
        signatures::SignedKeys,
        upload::Upload,
    },
};

use crate::routes::{
    call::{Call, Reply},
    error::ApiError,
    interactive::{Interactive, prove},
};

/// `POST …/upload`: a device publishes its keys.
pub async fn post_upload(services: Services, call: Call<upload::Request>) -> Reply<upload::Response> {
    let upload::Request { device_keys, one_time_keys, fallback_keys, .. } = call.request;
    let supply = services.keys.upload(&call.caller, &Upload { device_keys, one_time_keys, fallback_keys }).await?;
    let counts = supply.one_time.into_iter().map(|(name, count)| (name.into(), UInt::new_saturating(count)));
    Ok(upload::Response::new(counts.collect()))
}

/// `POST …/query`: identity keys of users and their devices.
pub async fn post_query(services: Services, call: Call<query::Request>) -> Reply<query::Response> {
    let keys = services.keys.query(&call.caller, &call.request.device_keys, call.request.timeout).await?;
    let mut response = query::Response::new();
    response.device_keys = keys.devices;
    response.master_keys = keys.master;
    response.self_signing_keys = keys.self_signing;
    response.user_signing_keys = keys.user_signing;
    response.failures = keys.failures;
    Ok(response)
}

/// `POST …/claim`: take one-time keys.
pub async fn post_claim(services: Services, call: Call<claim::Request>) -> Reply<claim::Response> {
    let claimed = services.keys.claim(&call.request.one_time_keys, call.request.timeout).await?;
    let mut response = claim::Response::new(claimed.keys);
    response.failures = claimed.failures;
    Ok(response)
}

/// `GET …/changes`: whose keys changed between two syncs.
pub async fn get_changes(services: Services, call: Call<changes::Request>) -> Reply<changes::Response> {
    let (since, until) = (position(&call.request.from)?, position(&call.request.to)?);
    let lists = services.keys.device_lists(call.caller.nid, since, until).await?;
    Ok(changes::Response::new(lists.changed, lists.left))
}

/// The position in a sync token: the number it begins with, after an optional letter.
fn position(token: &str) -> Result<i64, ApiError> {
    let digits = token.trim_start_matches(|c: char| c.is_ascii_alphabetic());
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().map_err(|_| ApiError::invalid_param("this is no token of a sync"))
}

/// `POST …/device_signing/upload`: a user publishes their cross-signing keys. To replace them takes a proof of identity.
pub async fn post_device_signing(
    services: Services,
    call: Call<Interactive<device_signing::Request>>,
) -> Reply<device_signing::Response> {
    let Interactive { request, auth } = call.request;
    let identity = Identity {
        master: request.master_key,
        self_signing: request.self_signing_key,
        user_signing: request.user_signing_key,
    };
    let is_exempt = call.caller.appservice.is_some();
    if services.keys.publish_identity(&call.caller, &identity, is_exempt).await? == Published::ProofNeeded {
        prove(&services, &call.caller, "replace cross-signing keys", auth.as_ref()).await?;
        services.keys.publish_identity(&call.caller, &identity, true).await?;
    }
    Ok(device_signing::Response::new())
}

/// `POST …/signatures/upload`: a user adds signatures to keys.
pub async fn post_signatures(services: Services, call: Call<signatures::Request>) -> Reply<signatures::Response> {
    let mut signed = SignedKeys::new();
    for (user_id, keys) in &call.request.signed_keys {
        let keys = keys.iter().map(|(id, key)| (id.to_owned(), key.to_owned()));
        signed.insert(user_id.clone(), keys.collect());
    }
    let refused = services.keys.add_signatures(&call.caller, &signed).await?;
    let mut response = signatures::Response::new();
    for (user_id, keys) in refused {
        let mut failures = BTreeMap::new();
        for (id, error) in keys {
            let error = ApiError::from(error);
            let failure = json!({ "errcode": error.code(), "error": error.words() });
            failures.insert(id, serde_json::from_value(failure).map_err(ApiError::internal)?);
        }
        response.failures.insert(user_id, failures);
    }
    Ok(response)
}
