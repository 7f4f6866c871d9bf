//! Probe DIDs: created on demand, and recognised without a database by every process that has
//! Genkan's keys.
//!
//! A probe DID is twelve random characters and twelve that follow from them by a key of this
//! Genkan. The proxy answers for it with a document whose signing key follows in the same way. A
//! service token signed by that key is accepted by exactly those hosts that resolve DIDs through
//! the proxy.

use data_encoding::BASE32_NOPAD;
use genkan_protocol::crypto::K256PrivateKey;
use genkan_protocol::did_document::DidDocument;
use genkan_protocol::plc::Data;
use genkan_protocol::syntax::Did;
use http::StatusCode;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::Page;
use crate::base::random;
use crate::keys::Ring;

/// Creates and recognises probe DIDs.
pub(crate) struct Prober {
    key: Zeroizing<[u8; 32]>,
}

/// A probe DID, and the key that signs for it.
#[derive(Debug)]
pub(crate) struct ProbeIdentity {
    pub(crate) did: Did,
    pub(crate) key: K256PrivateKey,
}

impl Prober {
    pub(crate) fn new(ring: &Ring) -> Self {
        Self { key: ring.derived("directory front probe") }
    }

    /// Creates an unused probe DID. A host may have cached the document of an earlier one, and
    /// would then prove nothing.
    pub(crate) fn fresh(&self) -> ProbeIdentity {
        loop {
            // Eight bytes are 13 characters of base32. The first half of the identifier takes 12 of
            // them.
            let chance = BASE32_NOPAD.encode(&random::bytes::<8>()).to_ascii_lowercase();
            let head = chance.get(..HALF).unwrap_or_default();
            if let Some(identity) = self.identity(head) {
                return identity;
            }
        }
    }

    pub(super) fn recognise(&self, did: &str) -> Option<ProbeIdentity> {
        let head = did.strip_prefix("did:plc:")?.get(..HALF)?;
        // The second half is a hash of the first and of a secret, so no other DID passes for a
        // probe, and no list of probes is kept.
        self.identity(head).filter(|identity| identity.did.as_str() == did)
    }

    fn identity(&self, head: &str) -> Option<ProbeIdentity> {
        let mark = BASE32_NOPAD.encode(self.digest("mark", head).as_slice()).to_ascii_lowercase();
        let did = format!("did:plc:{head}{}", mark.get(..HALF)?).parse().ok()?;
        // The key is derived as well: another process with the same secret renders the same
        // document.
        let key = K256PrivateKey::from_bytes(&self.digest("key", head)).ok()?;
        Some(ProbeIdentity { did, key })
    }

    fn digest(&self, what: &str, head: &str) -> Zeroizing<[u8; 32]> {
        let digest =
            Sha256::new().chain_update(*self.key).chain_update(what).chain_update(b"\0").chain_update(head);
        Zeroizing::new(digest.finalize().into())
    }
}

impl ProbeIdentity {
    fn data(&self) -> Data {
        let mut data = Data { rotation_keys: vec![self.key.public().to_did_key()], ..Data::default() };
        data.set_signing_key(&self.key.public());
        data
    }

    /// The page of the probe DID. It looks like that of any other DID, but has no history.
    pub(super) fn page(&self, part: &str) -> Page {
        match part {
            "" => Page::json(StatusCode::OK, &json!(DidDocument::of_plc_data(&self.did, &self.data()))),
            "/data" => Page::json(StatusCode::OK, &json!(self.data())),
            _ => Page::message(StatusCode::NOT_FOUND, "this DID is a probe"),
        }
    }
}

impl std::fmt::Debug for Prober {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Prober [sealed]")
    }
}

#[cfg(test)]
impl Prober {
    pub(crate) fn of_key(key: [u8; 32]) -> Self {
        Self { key: Zeroizing::new(key) }
    }
}

/// Half of the 24 characters of a `did:plc`.
const HALF: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_known_again_by_the_same_key_only() {
        let (ours, theirs) = (Prober::of_key([1; 32]), Prober::of_key([2; 32]));
        let (first, second) = (ours.fresh(), ours.fresh());
        assert_ne!(first.did, second.did);
        assert!(first.did.is_plc());
        let again = ours.recognise(first.did.as_str()).unwrap();
        assert_eq!(again.key.public().to_did_key(), first.key.public().to_did_key());
        assert!(theirs.recognise(first.did.as_str()).is_none());
        for other in ["did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", "did:plc:a", "did:web:example.com", ""] {
            assert!(ours.recognise(other).is_none(), "{other}");
        }
    }
}
