//! Proof keys for code exchange (RFC 7636), by `S256` only.
//!
//! ```
//! use genkan_protocol::oauth::pkce::Challenge;
//!
//! // RFC 7636, appendix B.
//! let challenge: Challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM".parse()?;
//! assert!(challenge.is_met_by("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"));
//! # Ok::<(), genkan_protocol::oauth::pkce::ChallengeError>(())
//! ```

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The `code_challenge` of an app's request: the SHA-256 of its verifier, 43 characters of
/// base64url (RFC 7636 §4.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Challenge([u8; 32]);

/// A text that is not a challenge of `S256`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("code_challenge must be 43 characters of base64url")]
pub struct ChallengeError;

impl Challenge {
    /// The challenge of a verifier.
    pub fn of(verifier: &str) -> Self {
        Self(Sha256::digest(verifier).into())
    }

    /// Whether the challenge was made of this verifier (RFC 7636 §4.6). False, too, for a text that
    /// has not the shape of a verifier: 43 to 128 letters, digits and `-._~` (§4.1).
    pub fn is_met_by(&self, verifier: &str) -> bool {
        // The shape is checked first, so that a short verifier that can be guessed is refused even
        // if its hash fits.
        is_verifier(verifier) && Self::of(verifier).0.ct_eq(&self.0).into()
    }
}

/// The verifier made of these random bytes, 43 characters of base64url.
pub fn verifier_of(random: &[u8; 32]) -> String {
    URL_SAFE_NO_PAD.encode(random)
}

/// Whether a text has the shape of a verifier (RFC 7636 §4.1).
fn is_verifier(text: &str) -> bool {
    (43..=128).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~'))
}

impl FromStr for Challenge {
    type Err = ChallengeError;

    fn from_str(text: &str) -> Result<Self, ChallengeError> {
        // The strict decoder accepts one spelling only: no padding and no stray bits at the end.
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| ChallengeError)?;
        bytes.try_into().map(Self).map_err(|_| ChallengeError)
    }
}

impl fmt::Display for Challenge {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for Challenge {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Challenge({self})")
    }
}
