//! Secrets at rest: XChaCha20-Poly1305, bound to the place they are kept in.
//!
//! A sealed text is `v1.<key id>.<base64url of nonce and ciphertext>`. The key id says which key
//! opens it, so that keys can change while old rows are still read. The purpose and the row are
//! authenticated with it: a sealed value copied to another row does not open.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{Secret, random};

const NONCE_BYTES: usize = 24;

/// Seals with one key and opens with that key.
#[derive(Clone)]
pub(crate) struct Sealer {
    key_id: Arc<str>,
    cipher: XChaCha20Poly1305,
}

/// Why a sealed value did not open. Says nothing about its content.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum OpenError {
    #[error("the sealed value is not in a form that this version knows")]
    Form,
    #[error("it was sealed with key {0}, which is not the configured sealing key")]
    OtherKey(String),
    #[error("the sealed value was changed, or belongs to another row")]
    Changed,
}

impl Sealer {
    pub(crate) fn new(key: &Secret<[u8; 32]>) -> Self {
        let digest =
            Sha256::new().chain_update(b"genkan sealing key id").chain_update(key.expose()).finalize();
        let key_id = HEXLOWER.encode(digest.get(..4).unwrap_or_default()).into();
        Self { key_id, cipher: XChaCha20Poly1305::new(key.expose().into()) }
    }

    /// A short public name of the key.
    pub(crate) fn key_id(&self) -> &str {
        &self.key_id
    }

    /// Seals `plain` for `row` of what `purpose` names (`hosts.admin_password`).
    pub(crate) fn seal(&self, purpose: &str, row: &str, plain: &[u8]) -> String {
        let nonce = random::bytes::<NONCE_BYTES>();
        let payload = Payload { msg: plain, aad: &associated(purpose, row, &self.key_id) };
        let sealed = self
            .cipher
            .encrypt(&XNonce::from(nonce), payload)
            .expect("a value of a few bytes is under the cipher's limit of 256 GiB");
        let mut out = nonce.to_vec();
        out.extend_from_slice(&sealed);
        format!("v1.{}.{}", self.key_id, URL_SAFE_NO_PAD.encode(out))
    }

    pub(crate) fn open(
        &self,
        purpose: &str,
        row: &str,
        sealed: &str,
    ) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let mut parts = sealed.split('.');
        let (Some("v1"), Some(key_id), Some(text), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(OpenError::Form);
        };
        if key_id != &*self.key_id {
            return Err(OpenError::OtherKey(key_id.to_owned()));
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| OpenError::Form)?;
        let (nonce, msg) = bytes.split_at_checked(NONCE_BYTES).ok_or(OpenError::Form)?;
        let nonce: [u8; NONCE_BYTES] = nonce.try_into().map_err(|_| OpenError::Form)?;
        let payload = Payload { msg, aad: &associated(purpose, row, key_id) };
        self.cipher.decrypt(&XNonce::from(nonce), payload).map(Zeroizing::new).map_err(|_| OpenError::Changed)
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sealer({})", self.key_id)
    }
}

fn associated(purpose: &str, row: &str, key_id: &str) -> Vec<u8> {
    // Lengths first, so that no two (purpose, row) pairs give the same bytes.
    format!("{}:{purpose}{}:{row}{key_id}", purpose.len(), row.len()).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer(byte: u8) -> Sealer {
        Sealer::new(&Secret::new([byte; 32]))
    }

    #[test]
    fn opens_only_with_its_key_in_its_row() {
        let sealed = sealer(1).seal("hosts.admin_password", "oak", b"hunter2");
        assert_eq!(&**sealer(1).open("hosts.admin_password", "oak", &sealed).unwrap(), b"hunter2");
        assert_eq!(sealer(1).open("hosts.admin_password", "elm", &sealed), Err(OpenError::Changed));
        assert_eq!(sealer(1).open("keys.private", "oak", &sealed), Err(OpenError::Changed));
        assert!(matches!(
            sealer(2).open("hosts.admin_password", "oak", &sealed),
            Err(OpenError::OtherKey(_))
        ));
        assert!(!sealed.contains("hunter2"));
        assert_eq!(sealer(1).open("x", "y", "v1.only"), Err(OpenError::Form));
    }

    #[test]
    fn never_seals_twice_alike() {
        assert_ne!(sealer(1).seal("a", "b", b"c"), sealer(1).seal("a", "b", b"c"));
    }
}
