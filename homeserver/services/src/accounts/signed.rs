//! Access tokens that we sign (JWT, HS256): whoever makes one up is turned away without a look at the database.
//!
//! The signature proves that we gave the token, nothing more. Whether it is still good its row says, under the hash of `jti`.

use std::{fmt, time::Duration};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use super::secrets::hash;
use crate::{Error, Result};

/// What a JWT of ours says.
#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    /// Our server name.
    iss: String,
    /// The user.
    sub: String,
    /// The device.
    did: String,
    /// Given at, seconds since 1970.
    iat: u64,
    /// Good until, seconds since 1970.
    exp: u64,
    /// Random, so that no two are the same.
    jti: String,
}

/// Signs access tokens and knows its own.
pub struct Signer {
    issuer: String,
    encoding: EncodingKey,
    decoding: DecodingKey,
    validation: Validation,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

impl Signer {
    /// For the server called `issuer`.
    #[must_use]
    pub fn new(issuer: &str, secret: &[u8]) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        // The row says it, by our own clock and not the machine's.
        validation.validate_exp = false;
        validation.set_issuer(&[issuer]);
        Self {
            issuer: issuer.to_owned(),
            encoding: EncodingKey::from_secret(secret),
            decoding: DecodingKey::from_secret(secret),
            validation,
        }
    }

    /// A token called `name` for a device of a user.
    ///
    /// # Errors
    /// [`Error::Internal`].
    pub fn sign(&self, user_id: &str, device_id: &str, name: &str, now_ms: u64, lifetime: Duration) -> Result<String> {
        let claims = Claims {
            iss: self.issuer.clone(),
            sub: user_id.to_owned(),
            did: device_id.to_owned(),
            iat: now_ms / 1000,
            exp: (now_ms / 1000).saturating_add(lifetime.as_secs()),
            jti: name.to_owned(),
        };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.encoding).map_err(Error::internal)
    }

    /// The row key of a token that we signed; `None` for any other text.
    #[must_use]
    pub fn key_of(&self, token: &str) -> Option<String> {
        let data = jsonwebtoken::decode::<Claims>(token, &self.decoding, &self.validation).ok()?;
        Some(hash(&data.claims.jti))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn only_what_this_server_signed_has_a_key() {
        let ours = Signer::new("example.org", b"secret of ours");
        let theirs = Signer::new("example.org", b"another secret");
        let elsewhere = Signer::new("example.com", b"secret of ours");

        let token = ours.sign("@alice:example.org", "PHONE", "name", 0, HOUR).unwrap();

        assert_eq!(ours.key_of(&token), Some(hash("name")));
        assert_eq!(theirs.key_of(&token), None);
        assert_eq!(elsewhere.key_of(&token), None);
        assert_eq!(ours.key_of(&token[..token.len() - 1]), None);
        assert_eq!(ours.key_of(""), None);
    }

    #[test]
    fn a_token_that_claims_to_need_no_signature_has_no_key() {
        let ours = Signer::new("example.org", b"secret of ours");
        let token = ours.sign("@alice:example.org", "PHONE", "name", 0, HOUR).unwrap();
        let (_, rest) = token.split_once('.').unwrap();

        // {"alg":"none","typ":"JWT"}
        let forged = format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{rest}");

        assert_eq!(ours.key_of(&forged), None);
        assert_eq!(ours.key_of(forged.trim_end_matches(|c| c != '.')), None);
    }
}
