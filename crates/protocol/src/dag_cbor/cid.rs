//! Content addresses of the one kind that repositories use (atproto Data Model, "Link and CID
//! Formats").

use std::fmt;

use sha2::{Digest, Sha256};

/// The address of a block: `CIDv1`, codec DAG-CBOR, SHA-256 of the bytes. Prints as base32,
/// `bafyrei…`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cid([u8; 32]);

impl Cid {
    /// The length of its binary form.
    pub(crate) const LENGTH: usize = 36;
    // In this order: version 1, codec DAG-CBOR, hash SHA-256, and its length of 32 bytes.
    const PREFIX: [u8; 4] = [0x01, 0x71, 0x12, 0x20];

    /// The address of a block.
    pub fn of(block: &[u8]) -> Self {
        Self(Sha256::digest(block).into())
    }

    /// Reads the binary form.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.strip_prefix(&Self::PREFIX)?.try_into().ok().map(Self)
    }

    pub(crate) fn to_bytes(self) -> Vec<u8> {
        [Self::PREFIX.as_slice(), &self.0].concat()
    }
}

impl fmt::Display for Cid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = data_encoding::BASE32_NOPAD.encode(&self.to_bytes());
        text.make_ascii_lowercase();
        write!(formatter, "b{text}")
    }
}

impl fmt::Debug for Cid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Cid({self})")
    }
}
