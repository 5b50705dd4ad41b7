//! The key this server signs with.
//!
//! The private key is a PKCS#8 document in our own database; it never leaves this module but for [`SigningKey::generate`].
//! All instances of a server share one key. [`rotate`] makes a new one, which each instance takes up when it starts; the old one
//! is served as an expired key for ever, because the events it signed are checked with it.
//! Source: Server-Server API, "Retrieving server keys", "Signing JSON" in the appendices.

use std::{fmt, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, ServerName,
    signatures::{Ed25519KeyPair, KeyPair as _, PublicKeyMap, PublicKeySet, VerificationError, sign_json, verify_json},
};

use storage::{Store, server_keys};

use crate::{
    Error, Result,
    clock::{Clock, Randomness},
};

/// The key in use, made now if there is none. Several instances starting at once agree on one.
///
/// # Errors
/// The database's; [`Error::Internal`] when the stored key cannot be read.
pub async fn load_or_create(store: &Store, randomness: &Randomness) -> Result<SigningKey> {
    if let Some(key) = load(store).await? {
        return Ok(key);
    }
    let (document, version, _) = SigningKey::generate(randomness)?;
    let mut tx = store.begin().await?;
    server_keys::add_own(&mut tx, &version, &document).await?;
    tx.commit().await?;
    load(store).await?.ok_or_else(|| Error::internal("the signing key just stored is gone"))
}

async fn load(store: &Store) -> Result<Option<SigningKey>> {
    let keys = server_keys::own(&mut store.read().await?).await?;
    let current = keys.iter().find(|key| key.expired_at.is_none());
    current.map(|key| SigningKey::from_document(&key.document, &key.version)).transpose()
}

/// Replace the key in use by a new one. Running instances go on signing with the old one until they start again; others accept
/// that for as long as they keep our last answer about our keys (a day).
///
/// # Errors
/// The database's.
pub async fn rotate(store: &Store, randomness: &Randomness, clock: &Clock) -> Result<SigningKey> {
    let (document, version, key) = SigningKey::generate(randomness)?;
    let mut tx = store.begin().await?;
    server_keys::expire_own(&mut tx, i64::try_from(clock.now_ms()).unwrap_or(i64::MAX)).await?;
    server_keys::add_own(&mut tx, &version, &document).await?;
    tx.commit().await?;
    Ok(key)
}

/// Whether `server` signed `object` with one of `keys`. Signatures of others have no say.
///
/// # Errors
/// What is wrong with the signature.
pub fn verify(server: &ServerName, keys: PublicKeySet, object: &CanonicalJsonObject) -> Result<(), VerificationError> {
    let mut object = object.clone();
    // ruma checks every signature it finds, and is content when it finds none.
    match object.get_mut("signatures") {
        Some(CanonicalJsonValue::Object(signatures)) if signatures.contains_key(server.as_str()) => {
            signatures.retain(|signer, _| signer == server.as_str());
        }
        _ => return Err(VerificationError::NoSignaturesForEntity(server.to_string())),
    }
    verify_json(&PublicKeyMap::from([(server.to_string(), keys)]), &object)
}

/// An ed25519 key with its id.
#[derive(Clone)]
pub struct SigningKey(Arc<Inner>);

struct Inner {
    pair: Ed25519KeyPair,
    version: String,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SigningKey").field(&self.id()).finish()
    }
}

impl SigningKey {
    /// From a stored document and the key's version (the part of its id after `ed25519:`).
    ///
    /// # Errors
    /// [`Error::Internal`] when the document is not a key.
    pub fn from_document(document: &[u8], version: &str) -> Result<Self> {
        let pair = Ed25519KeyPair::from_der(document, version.to_owned())
            .map_err(|error| Error::Internal(format!("the signing key cannot be read: {error}")))?;
        Ok(Self(Arc::new(Inner { pair, version: version.to_owned() })))
    }

    /// A new key: the document to store, its version, the key.
    ///
    /// # Errors
    /// [`Error::Internal`] when the new document cannot be read back.
    pub fn generate(randomness: &Randomness) -> Result<(Vec<u8>, String, Self)> {
        let document = Ed25519KeyPair::generate().to_vec();
        let version = format!("a_{}", randomness.letters(6));
        let key = Self::from_document(&document, &version)?;
        Ok((document, version, key))
    }

    /// The pair, for signing.
    #[must_use]
    pub fn pair(&self) -> &Ed25519KeyPair {
        &self.0.pair
    }

    /// `ed25519:VERSION`.
    #[must_use]
    pub fn id(&self) -> String {
        format!("ed25519:{}", self.0.version)
    }

    /// The public half, unpadded base64.
    #[must_use]
    pub fn public(&self) -> String {
        STANDARD_NO_PAD.encode(self.0.pair.public_key())
    }

    /// Sign an object in the name of `server`.
    ///
    /// # Errors
    /// [`Error::Internal`] when the object's `signatures` are no object.
    pub fn sign(&self, server: &ruma::ServerName, object: &mut CanonicalJsonObject) -> Result<()> {
        sign_json(server.as_str(), &self.0.pair, object).map_err(Error::internal)
    }

    /// Sign raw bytes: unpadded base64.
    #[must_use]
    pub fn sign_bytes(&self, bytes: &[u8]) -> String {
        self.0.pair.sign(bytes).base64()
    }
}

#[cfg(test)]
mod tests {
    use ruma::{serde::Base64, server_name};

    use super::*;

    #[test]
    fn only_the_signature_of_the_server_named_counts() {
        let randomness = Randomness::seeded(1);
        let (here, there) = (server_name!("here.example"), server_name!("there.example"));
        let [ours, theirs] = [0, 1].map(|_| SigningKey::generate(&randomness).unwrap().2);
        let set = |key: &SigningKey| PublicKeySet::from([(key.id(), Base64::parse(key.public()).unwrap())]);
        let plain: CanonicalJsonObject = [("a".to_owned(), "1".into())].into();
        let mut signed = plain.clone();
        ours.sign(here, &mut signed).unwrap();
        theirs.sign(there, &mut signed).unwrap();
        let mut changed = signed.clone();
        changed.insert("a".to_owned(), "2".into());
        let mut emptied = plain.clone();
        emptied.insert("signatures".to_owned(), CanonicalJsonObject::new().into());
        let mut foreign = plain.clone();
        theirs.sign(there, &mut foreign).unwrap();

        assert!(verify(here, set(&ours), &signed).is_ok());
        assert!(verify(there, set(&theirs), &signed).is_ok());
        assert!(verify(here, set(&theirs), &signed).is_err());
        assert!(verify(here, PublicKeySet::new(), &signed).is_err());
        for object in [plain, changed, emptied, foreign] {
            assert!(verify(here, set(&ours), &object).is_err(), "{object:?}");
        }
    }
}
