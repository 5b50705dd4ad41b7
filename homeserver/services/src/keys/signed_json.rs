//! Signed JSON objects: what was signed, by whom, and whether it is true.
//!
//! Source: appendices, "Signing JSON", "Checking for a Signature".

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, SigningKeyAlgorithm,
    serde::{Base64, Raw, base64::Standard},
    signatures::{to_canonical_json_string_for_signing, verify_canonical_json_bytes},
};

use crate::{Error, Result};

/// The object of a raw value.
///
/// # Errors
/// [`Error::Invalid`] when it is no object of canonical JSON.
pub(super) fn object<T>(raw: &Raw<T>) -> Result<CanonicalJsonObject> {
    serde_json::from_str(raw.json().get()).map_err(|error| Error::invalid(format!("not canonical JSON: {error}")))
}

/// The bytes that signatures of the object stand for; two objects with the same ones differ in signatures and `unsigned` alone.
///
/// # Errors
/// [`Error::Invalid`] when they cannot be written.
pub(super) fn signed_bytes(object: &CanonicalJsonObject) -> Result<String> {
    to_canonical_json_string_for_signing(object).map_err(|error| Error::invalid(error.to_string()))
}

/// The signatures of `user` on the object: (key id, signature).
pub(super) fn signatures_of<'a>(
    object: &'a CanonicalJsonObject,
    user: &str,
) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
    let signatures = match object.get("signatures") {
        Some(CanonicalJsonValue::Object(users)) => users.get(user),
        _ => None,
    };
    let signatures = match signatures {
        Some(CanonicalJsonValue::Object(signatures)) => Some(signatures),
        _ => None,
    };
    signatures.into_iter().flatten().filter_map(|(key_id, signature)| match signature {
        CanonicalJsonValue::String(signature) => Some((key_id.as_str(), signature.as_str())),
        _ => None,
    })
}

/// The signature of `user` with key `key_id` on the object.
pub(super) fn signature<'a>(object: &'a CanonicalJsonObject, user: &str, key_id: &str) -> Option<&'a str> {
    signatures_of(object, user).find(|(id, _)| *id == key_id).map(|(_, signature)| signature)
}

/// Whether `signature` (base64) on the object was made with the ed25519 key `public_key` (base64).
pub(super) fn is_signed(object: &CanonicalJsonObject, public_key: &str, signature: &str) -> bool {
    let (Ok(key), Ok(signature)) = (Base64::<Standard>::parse(public_key), Base64::<Standard>::parse(signature)) else {
        return false;
    };
    let Ok(bytes) = signed_bytes(object) else { return false };
    verify_canonical_json_bytes(&SigningKeyAlgorithm::Ed25519, key.as_bytes(), signature.as_bytes(), bytes.as_bytes())
        .is_ok()
}
