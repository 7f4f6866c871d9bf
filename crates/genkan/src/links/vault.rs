//! The secrets of a session at rest: one sealed text per row, bound to the session, its account and
//! its version.
//!
//! A dump of the database opens nothing. A text that was copied to another row, or back from an
//! older version, does not open.

use genkan_protocol::crypto::P256PrivateKey;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::base::random;
use crate::base::seal::{Sealer, UnsealError};
use crate::keys::SealedColumn;

/// The secrets of a session.
#[derive(Clone)]
pub(super) struct Tokens {
    pub(super) access: Zeroizing<String>,
    pub(super) refresh: Zeroizing<String>,
    /// The session's proof key, which it keeps for its whole life.
    pub(super) key: P256PrivateKey,
}

/// The secrets of a sign-in that waits for its browser to return.
pub(super) struct LoginSecrets {
    pub(super) key: P256PrivateKey,
    pub(super) verifier: Zeroizing<String>,
}

/// The associated data of a session's sealed secrets. They open in this row and version only.
#[derive(Clone, Copy, Debug)]
pub(super) struct SessionAad<'a> {
    pub(super) link: &'a str,
    pub(super) did: &'a str,
    pub(super) version: i64,
}

impl SessionAad<'_> {
    fn row(&self) -> String {
        // `SEALED_COLUMNS` builds this text in SQL: change both or neither.
        format!("{}/{}/{}", self.link, self.did, self.version)
    }
}

impl Tokens {
    pub(super) fn seal(&self, sealer: &Sealer, aad: SessionAad<'_>) -> String {
        let bytes = self.key.to_bytes();
        let written = SealedTokens { access: &self.access, refresh: &self.refresh, key: *bytes };
        seal(sealer, SESSION, &aad.row(), &written)
    }

    pub(super) fn open(sealer: &Sealer, aad: SessionAad<'_>, text: &str) -> Result<Self, UnsealError> {
        let plain = sealer.unseal(SESSION, &aad.row(), text)?;
        // Borrows from `plain`, so that every copy of a token is in a buffer that is erased.
        let written: SealedTokens<'_> = serde_json::from_slice(&plain).map_err(|_| UnsealError::Form)?;
        Ok(Self {
            access: Zeroizing::new(written.access.to_owned()),
            refresh: Zeroizing::new(written.refresh.to_owned()),
            key: P256PrivateKey::from_bytes(&written.key).map_err(|_| UnsealError::Form)?,
        })
    }
}

impl LoginSecrets {
    pub(super) fn seal(&self, sealer: &Sealer, state: &str) -> String {
        // The verifier takes the place of the access token. The purpose keeps this text from
        // opening as a session.
        let written = SealedTokens { access: &self.verifier, refresh: "", key: *self.key.to_bytes() };
        seal(sealer, LOGIN, state, &written)
    }

    pub(super) fn open(sealer: &Sealer, state: &str, text: &str) -> Result<Self, UnsealError> {
        let plain = sealer.unseal(LOGIN, state, text)?;
        let written: SealedTokens<'_> = serde_json::from_slice(&plain).map_err(|_| UnsealError::Form)?;
        Ok(Self {
            verifier: Zeroizing::new(written.access.to_owned()),
            key: P256PrivateKey::from_bytes(&written.key).map_err(|_| UnsealError::Form)?,
        })
    }
}

fn seal(sealer: &Sealer, purpose: &str, row: &str, written: &SealedTokens<'_>) -> String {
    let plain = Zeroizing::new(serde_json::to_vec(written).expect("texts and bytes are plain data"));
    sealer.seal(purpose, row, &plain)
}

/// Creates a new random key.
pub(super) fn fresh_key() -> P256PrivateKey {
    loop {
        // Nearly every 256-bit number is a valid key. Others are drawn again.
        if let Ok(key) = P256PrivateKey::from_bytes(&random::bytes::<32>()) {
            return key;
        }
    }
}

/// The sealed form. Tokens are ASCII without anything that JSON would escape, which is checked on
/// receipt.
#[derive(Serialize, Deserialize)]
struct SealedTokens<'a> {
    access: &'a str,
    refresh: &'a str,
    key: [u8; 32],
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[sealed]")
    }
}

impl std::fmt::Debug for LoginSecrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[sealed]")
    }
}

const SESSION: &str = "links.sealed";
const LOGIN: &str = "link_logins.sealed";

/// The sealed columns of this room.
pub(crate) const SEALED_COLUMNS: &[SealedColumn] = &[
    SealedColumn {
        table: "links",
        key: "id",
        column: "sealed",
        purpose: SESSION,
        row: "id || '/' || did || '/' || CAST(version AS TEXT)",
    },
    SealedColumn { table: "link_logins", key: "state", column: "sealed", purpose: LOGIN, row: "state" },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Secret;

    #[test]
    fn c18_what_is_sealed_opens_in_its_own_row_and_version_only() {
        let sealer = Sealer::new(&Secret::new([7; 32]));
        let tokens = Tokens {
            access: Zeroizing::new("the-access-token".to_owned()),
            refresh: Zeroizing::new("the-refresh-token".to_owned()),
            key: fresh_key(),
        };
        let aad = SessionAad { link: "a", did: "did:plc:ann", version: 3 };
        let text = tokens.seal(&sealer, aad);
        let opened = Tokens::open(&sealer, aad, &text).unwrap();
        assert_eq!((&*opened.access, &*opened.refresh), (&*tokens.access, &*tokens.refresh));
        assert_eq!(opened.key.public(), tokens.key.public());
        for other in [
            SessionAad { link: "b", ..aad },
            SessionAad { did: "did:plc:bob", ..aad },
            SessionAad { version: 2, ..aad },
        ] {
            assert_eq!(Tokens::open(&sealer, other, &text).unwrap_err(), UnsealError::Changed);
        }
        assert!(LoginSecrets::open(&sealer, "a/did:plc:ann/3", &text).is_err(), "another kind of row");
        assert!(!text.contains("token") && format!("{tokens:?}") == "[sealed]");
    }
}
