//! Encryption of secrets at rest: XChaCha20-Poly1305, bound to purpose and row.
//!
//! A sealed text is `v1.<key id>.<base64url of nonce and ciphertext>`. The key id names the key
//! that unseals it, so that keys can change while old rows are still readable. Purpose and row are
//! associated data: a sealed value that is copied to another row or column does not unseal.

use std::sync::{Arc, PoisonError, RwLock};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{Secret, random};

/// `XChaCha20` nonces are long enough to be random: no counter has to be shared between processes.
const NONCE_BYTES: usize = 24;

/// The sealing keys: the one that seals, and older ones that still unseal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SealingKeys {
    pub(crate) current: Secret<[u8; 32]>,
    pub(crate) older: Vec<Secret<[u8; 32]>>,
}

impl SealingKeys {
    pub(crate) const fn one(current: Secret<[u8; 32]>) -> Self {
        Self { current, older: Vec::new() }
    }
}

/// Seals with the current key, and unseals with that and older ones.
///
/// Clones share their keys: [`Sealer::replace`] on one applies to all.
#[derive(Clone)]
pub(crate) struct Sealer {
    ring: Arc<RwLock<Arc<[NamedKey]>>>,
}

/// A sealing key with its id. The first of a list is the current one.
struct NamedKey {
    id: Arc<str>,
    cipher: XChaCha20Poly1305,
}

impl NamedKey {
    fn of(key: &Secret<[u8; 32]>) -> Self {
        Self { id: key_id(key), cipher: XChaCha20Poly1305::new(key.expose().into()) }
    }
}

/// Returns the public id of a sealing key: 8 hexadecimal digits of its hash.
///
/// It is written next to every sealed value and names a key in messages. The prefix keeps this hash
/// apart from other uses of SHA-256 on the key.
pub(crate) fn key_id(key: &Secret<[u8; 32]>) -> Arc<str> {
    let digest = Sha256::new().chain_update(b"genkan sealing key id").chain_update(key.expose()).finalize();
    // Four bytes are enough to tell a few keys apart, and too few to say anything about the key.
    HEXLOWER.encode(digest.get(..4).unwrap_or_default()).into()
}

/// Why a sealed value could not be unsealed. Says nothing about its content.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum UnsealError {
    #[error("the sealed value is not in a form that this version knows")]
    Form,
    #[error("it was sealed with key {0}, which is not among the configured sealing keys")]
    OtherKey(String),
    #[error("the sealed value was changed, or belongs to another row")]
    Changed,
}

impl Sealer {
    pub(crate) fn of(keys: &SealingKeys) -> Self {
        Self { ring: Arc::new(RwLock::new(named(keys))) }
    }

    #[cfg(test)]
    pub(crate) fn new(key: &Secret<[u8; 32]>) -> Self {
        Self::of(&SealingKeys::one(key.clone()))
    }

    /// A sealer before and after its key was rotated.
    #[cfg(test)]
    pub(crate) fn before_and_after_rotation() -> (Self, Self) {
        let (old, new) = (Secret::new([1; 32]), Secret::new([2; 32]));
        (Self::new(&old), Self::of(&SealingKeys { current: new, older: vec![old] }))
    }

    /// Replaces the keys of this sealer and all its clones.
    pub(crate) fn replace(&self, keys: &SealingKeys) {
        *self.ring.write().unwrap_or_else(PoisonError::into_inner) = named(keys);
    }

    /// The id of the current key.
    pub(crate) fn key_id(&self) -> Arc<str> {
        self.current(|key| Arc::clone(&key.id))
    }

    /// Whether values that this key sealed can be unsealed.
    pub(crate) fn knows(&self, key_id: &str) -> bool {
        self.ring().iter().any(|key| *key.id == *key_id)
    }

    // Clones the list and drops the lock: sealing with a replaced key once more does no harm, and a
    // slow cipher never holds up `replace`.
    fn ring(&self) -> Arc<[NamedKey]> {
        Arc::clone(&self.ring.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn current<T>(&self, look: impl FnOnce(&NamedKey) -> T) -> T {
        look(self.ring().first().expect("there is a current key from the start"))
    }

    /// Seals a value again with the current key. `None` if the current key sealed it.
    pub(crate) fn reseal(
        &self,
        purpose: &str,
        row: &str,
        sealed: &str,
    ) -> Result<Option<String>, UnsealError> {
        let plain = self.unseal(purpose, row, sealed)?;
        let is_current = sealed.split('.').nth(1) == Some(&*self.key_id());
        Ok((!is_current).then(|| self.seal(purpose, row, &plain)))
    }

    /// Seals `plain` for one row of a column. `purpose` names the column, as
    /// `hosts.admin_password`.
    pub(crate) fn seal(&self, purpose: &str, row: &str, plain: &[u8]) -> String {
        // A new one for each value: two values under one key and nonce would reveal each other.
        let nonce = random::bytes::<NONCE_BYTES>();
        self.current(|key| {
            let payload = Payload { msg: plain, aad: &aad(purpose, row, &key.id) };
            let sealed = key
                .cipher
                .encrypt(&XNonce::from(nonce), payload)
                .expect("a value of a few bytes is under the cipher's limit of 256 GiB");
            let mut out = nonce.to_vec();
            out.extend_from_slice(&sealed);
            format!("v1.{}.{}", key.id, URL_SAFE_NO_PAD.encode(out))
        })
    }

    /// Returns the plain value. `purpose` and `row` must be those that it was sealed for.
    pub(crate) fn unseal(
        &self,
        purpose: &str,
        row: &str,
        sealed: &str,
    ) -> Result<Zeroizing<Vec<u8>>, UnsealError> {
        // base64url contains no dot, so there are exactly three parts.
        let mut parts = sealed.split('.');
        let (Some("v1"), Some(key_id), Some(text), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(UnsealError::Form);
        };
        let ring = self.ring();
        let key = ring.iter().find(|key| *key.id == *key_id);
        let key = key.ok_or_else(|| UnsealError::OtherKey(key_id.to_owned()))?;
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| UnsealError::Form)?;
        let (nonce, msg) = bytes.split_at_checked(NONCE_BYTES).ok_or(UnsealError::Form)?;
        let nonce: [u8; NONCE_BYTES] = nonce.try_into().map_err(|_| UnsealError::Form)?;
        let payload = Payload { msg, aad: &aad(purpose, row, key_id) };
        key.cipher
            .decrypt(&XNonce::from(nonce), payload)
            .map(Zeroizing::new)
            // The cipher does not tell a changed text from a wrong purpose or row.
            .map_err(|_| UnsealError::Changed)
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sealer({})", self.key_id())
    }
}

fn named(keys: &SealingKeys) -> Arc<[NamedKey]> {
    std::iter::once(&keys.current).chain(&keys.older).map(NamedKey::of).collect()
}

/// Returns the associated data of a sealed value.
fn aad(purpose: &str, row: &str, key_id: &str) -> Vec<u8> {
    // The lengths come first, so that no two pairs of purpose and row give the same bytes.
    format!("{}:{purpose}{}:{row}{key_id}", purpose.len(), row.len()).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer(byte: u8) -> Sealer {
        Sealer::of(&keys(byte))
    }

    fn keys(byte: u8) -> SealingKeys {
        SealingKeys::one(Secret::new([byte; 32]))
    }

    #[test]
    fn a_new_key_opens_what_the_older_sealed_and_seals_from_then_on() {
        let before = sealer(1);
        let sealed = before.seal("hosts.admin_password", "oak", b"hunter2");
        let other = before.clone();
        before.replace(&SealingKeys { older: vec![Secret::new([1; 32])], ..keys(2) });
        assert!(other.knows(&sealer(1).key_id()) && *other.key_id() == *sealer(2).key_id());
        assert_eq!(&**other.unseal("hosts.admin_password", "oak", &sealed).unwrap(), b"hunter2");
        let again = other.reseal("hosts.admin_password", "oak", &sealed).unwrap().unwrap();
        assert_eq!(&**sealer(2).unseal("hosts.admin_password", "oak", &again).unwrap(), b"hunter2");
        assert_eq!(other.reseal("hosts.admin_password", "oak", &again).unwrap(), None);
        assert_eq!(other.reseal("hosts.admin_password", "elm", &sealed), Err(UnsealError::Changed));
    }

    #[test]
    fn opens_only_with_its_key_in_its_row() {
        let sealed = sealer(1).seal("hosts.admin_password", "oak", b"hunter2");
        assert_eq!(&**sealer(1).unseal("hosts.admin_password", "oak", &sealed).unwrap(), b"hunter2");
        assert_eq!(sealer(1).unseal("hosts.admin_password", "elm", &sealed), Err(UnsealError::Changed));
        assert_eq!(sealer(1).unseal("keys.private", "oak", &sealed), Err(UnsealError::Changed));
        assert!(matches!(
            sealer(2).unseal("hosts.admin_password", "oak", &sealed),
            Err(UnsealError::OtherKey(_))
        ));
        assert!(!sealed.contains("hunter2"));
        assert_eq!(sealer(1).unseal("x", "y", "v1.only"), Err(UnsealError::Form));
    }

    #[test]
    fn never_seals_twice_alike() {
        assert_ne!(sealer(1).seal("a", "b", b"c"), sealer(1).seal("a", "b", b"c"));
    }
}
