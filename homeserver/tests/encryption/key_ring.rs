//! Keys as a client makes and signs them.

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use ruma::{
    CanonicalJsonObject,
    signatures::{Ed25519KeyPair, sign_json},
};
use serde_json::{Value, json};

use crate::fixture::Client;

/// An ed25519 key with the name it signs by.
pub(crate) struct Key {
    pair: Ed25519KeyPair,
    /// Its public half, unpadded base64.
    pub(crate) public: String,
}

impl Key {
    /// A new key that signs as `ed25519:NAME`.
    pub(crate) fn named(name: &str) -> Self {
        let document = Ed25519KeyPair::generate().to_vec();
        let pair = Ed25519KeyPair::from_der(&document, name.to_owned()).unwrap();
        let public = STANDARD_NO_PAD.encode(pair.public_key());
        Self { pair, public }
    }

    /// A new key that is named for itself, as cross-signing keys are.
    pub(crate) fn named_for_itself() -> Self {
        let document = Ed25519KeyPair::generate().to_vec();
        let pair = Ed25519KeyPair::from_der(&document, String::new()).unwrap();
        let public = STANDARD_NO_PAD.encode(pair.public_key());
        Self { pair: Ed25519KeyPair::from_der(&document, public.clone()).unwrap(), public }
    }

    /// The object with this key's signature in the name of `user_id`.
    pub(crate) fn signs(&self, user_id: &str, object: &Value) -> Value {
        let mut object: CanonicalJsonObject = serde_json::from_value(object.clone()).unwrap();
        sign_json(user_id, &self.pair, &mut object).unwrap();
        serde_json::to_value(object).unwrap()
    }
}

/// A device's identity keys, unsigned.
pub(crate) fn device_keys(client: &Client, key: &Key) -> Value {
    let device = &client.device_id;
    json!({
        "user_id": client.user_id,
        "device_id": device,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
        "keys": {
            format!("ed25519:{device}"): key.public,
            format!("curve25519:{device}"): "3C5BFWi2Y8MaVvjM8M22DBmh24PmgR0nPvJOIArzgyI",
        },
    })
}

/// Publish signed identity keys of a client's device; returns its key and what was published.
pub(crate) async fn publishes_device(client: &Client) -> (Key, Value) {
    let key = Key::named(&client.device_id);
    let keys = key.signs(&client.user_id, &device_keys(client, &key));
    client.post("/_matrix/client/v3/keys/upload", json!({ "device_keys": keys })).await.ok();
    (key, keys)
}

/// A one-time key.
pub(crate) fn one_time_key(nth: u8) -> Value {
    let key = STANDARD_NO_PAD.encode([nth; 32]);
    json!({ "key": key, "signatures": { "@a:example.org": { "ed25519:A": "c2lnbmF0dXJl" } } })
}

/// A cross-signing key of a user, unsigned.
pub(crate) fn cross_signing_key(client: &Client, usage: &str, key: &Key) -> Value {
    json!({ "user_id": client.user_id, "usage": [usage], "keys": { format!("ed25519:{}", key.public): key.public } })
}

/// The keys a user vouches with.
pub(crate) struct Identity {
    pub(crate) master: Key,
    pub(crate) self_signing: Key,
    pub(crate) user_signing: Key,
}

impl Identity {
    pub(crate) fn new() -> Self {
        let key = Key::named_for_itself;
        Self { master: key(), self_signing: key(), user_signing: key() }
    }

    /// The body of an upload, all signed by the master key.
    pub(crate) fn body(&self, client: &Client) -> Value {
        let signed = |usage, key| self.master.signs(&client.user_id, &cross_signing_key(client, usage, key));
        json!({
            "master_key": cross_signing_key(client, "master", &self.master),
            "self_signing_key": signed("self_signing", &self.self_signing),
            "user_signing_key": signed("user_signing", &self.user_signing),
        })
    }

    /// Make and publish an identity.
    pub(crate) async fn published_by(client: &Client) -> Self {
        let identity = Self::new();
        client.post("/_matrix/client/v3/keys/device_signing/upload", identity.body(client)).await.ok();
        identity
    }
}

/// What `client` is told of somebody's keys.
pub(crate) async fn query(client: &Client, user_id: &str) -> Value {
    client.post("/_matrix/client/v3/keys/query", json!({ "device_keys": { user_id: [] } })).await.ok()
}
