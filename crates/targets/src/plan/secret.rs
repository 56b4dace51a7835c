//! The secret key of a plan.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::error::{Result, TargetsError};
use crate::hex;

/// The 128-bit key of the cookie: random, apart from the public seed, and never printed by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretKey([u8; 16]);

impl SecretKey {
    /// A key from the operating system's random source.
    ///
    /// # Errors
    /// [`TargetsError::Random`] when there is none.
    pub fn random() -> Result<Self> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|error| TargetsError::Random(error.to_string()))?;
        Ok(Self(bytes))
    }

    /// A given key (tests, keys kept elsewhere).
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The key itself, for the cookie.
    pub fn bytes(&self) -> [u8; 16] {
        self.0
    }

    /// SHA-256 over a label and the key, in hexadecimal: may be published, tells whether two runs share a key.
    pub fn hash(&self) -> String {
        hex::encode(&Sha256::new().chain_update(b"irlstack secret key 1\0").chain_update(self.0).finalize())
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(redacted)")
    }
}

impl Serialize for SecretKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for SecretKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // The text is not repeated in the message: it may be a key with one digit missing.
        hex::decode(&text).map(Self).ok_or_else(|| serde::de::Error::custom("secret must be 32 hexadecimal digits"))
    }
}
