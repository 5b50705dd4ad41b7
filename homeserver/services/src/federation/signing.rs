//! The key this server signs with.
//!
//! The private key is a PKCS#8 document; it never leaves this module but for [`SigningKey::generate`], whose caller stores it.
//! Source: Server-Server API, "Retrieving server keys", "Signing JSON" in the appendices.

use std::{fmt, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use ruma::{
    CanonicalJsonObject,
    signatures::{Ed25519KeyPair, KeyPair as _, sign_json},
};

use crate::{Error, Result, clock::Randomness};

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
