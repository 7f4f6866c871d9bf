//! The DPoP nonces that servers demand in proofs: by session and origin, and the newest of each
//! origin.
//!
//! A server may bind its nonces to a key, though most do not. A nonce in any answer counts.

use std::fmt;
use std::sync::Arc;

use crate::base::{ByteCache, CacheSize, Origin, Timestamp, Weigh};

/// A nonce, and when it was received.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct LinkNonce {
    pub(crate) nonce: Arc<str>,
    pub(crate) at: Timestamp,
}

impl fmt::Debug for LinkNonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LinkNonce({})", self.at)
    }
}

/// Two caches of nonces, bounded by bytes.
pub(super) struct Nonces {
    of_session: ByteCache<(Arc<str>, Origin), LinkNonce>,
    of_origin: ByteCache<Origin, LinkNonce>,
}

impl Nonces {
    /// Each of the two caches has at most `bytes`.
    pub(super) fn new(bytes: usize) -> Self {
        let size = CacheSize { name: "linked_nonces", bytes, typical: TYPICAL };
        Self { of_session: size.build(), of_origin: size.build() }
    }

    pub(super) fn get(&self, session: &str, origin: &Origin) -> Option<LinkNonce> {
        self.of_session.get(&(Arc::from(session), origin.clone())).or_else(|| self.of_origin.get(origin))
    }

    /// Remembers a nonce. A nonce that is too long is ignored, so that no server can make Genkan's
    /// requests large.
    pub(super) fn hear(&self, session: &str, origin: &Origin, nonce: &str, at: Timestamp) {
        if nonce.is_empty() || nonce.len() > LONGEST || !nonce.bytes().all(|byte| byte.is_ascii_graphic()) {
            return;
        }
        let heard = LinkNonce { nonce: nonce.into(), at };
        // Under both names: a session without a nonce of its own tries the newest of the origin
        // first.
        self.of_session.insert((Arc::from(session), origin.clone()), heard.clone());
        self.of_origin.insert(origin.clone(), heard);
    }
}

impl fmt::Debug for Nonces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nonces").finish_non_exhaustive()
    }
}

impl Weigh for LinkNonce {
    fn heap_bytes(&self) -> usize {
        self.nonce.heap_bytes()
    }
}

const LONGEST: usize = 512;
const TYPICAL: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::assert_weighs;

    #[test]
    fn a_nonce_weighs_its_text() {
        let at = Timestamp::from_seconds(1);
        assert_weighs(|length| LinkNonce { nonce: "n".repeat(length).into(), at });
    }

    #[test]
    fn a_session_has_its_own_nonce_and_else_the_newest_of_the_origin() {
        let nonces = Nonces::new(1 << 16);
        let (one, other): (Origin, Origin) =
            ("https://a.example.com".parse().unwrap(), "https://b.example.com".parse().unwrap());
        let at = Timestamp::from_seconds(1);
        nonces.hear("ann", &one, "n1", at);
        nonces.hear("bob", &one, "n2", at);
        let get =
            |session: &str, origin: &Origin| nonces.get(session, origin).map(|heard| heard.nonce.to_string());
        assert_eq!(get("ann", &one).as_deref(), Some("n1"));
        assert_eq!(get("eve", &one).as_deref(), Some("n2"));
        assert_eq!(get("ann", &other), None);
        nonces.hear("ann", &one, &"x".repeat(513), at);
        nonces.hear("ann", &one, "with space", at);
        assert_eq!(get("ann", &one).as_deref(), Some("n1"));
    }
}
