//! Thumbprints of keys (RFC 7638).

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The SHA-256 thumbprint of a key, 43 characters of base64url: the `jkt` of RFC 9449 §6.1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Thumbprint([u8; 43]);

/// A text that is not a thumbprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a thumbprint: 43 characters of base64url")]
pub struct ThumbprintError;

impl Thumbprint {
    pub(super) fn of(digest: [u8; 32]) -> Self {
        let mut text = [0; 43];
        URL_SAFE_NO_PAD.encode_slice(digest, &mut text).expect("32 bytes are 43 characters");
        Self(text)
    }

    /// The thumbprint as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("base64url is ASCII")
    }
}

impl FromStr for Thumbprint {
    type Err = ThumbprintError;

    fn from_str(text: &str) -> Result<Self, ThumbprintError> {
        // Decoded and encoded again, so that equal thumbprints are equal texts.
        let decoded = URL_SAFE_NO_PAD.decode(text).map_err(|_| ThumbprintError)?;
        decoded.try_into().map(Self::of).map_err(|_| ThumbprintError)
    }
}

impl fmt::Display for Thumbprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

impl fmt::Debug for Thumbprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Thumbprint({self})")
    }
}

impl Serialize for Thumbprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Thumbprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
