//! One version of a session's tokens, unsealed, while it is valid.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use genkan_protocol::crypto::P256PrivateKey;
use genkan_protocol::oauth::dpop::{ProofClaims, ProofKey, ath, backdated};
use genkan_protocol::syntax::Did;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::id::LinkId;
use crate::base::{Origin, Timestamp, Weigh, allocation, random};

/// One version of a session's tokens, in memory.
pub(crate) struct Credential {
    pub(crate) link: LinkId,
    pub(crate) did: Did,
    /// The account's PDS, as it was verified. No other server gets the token.
    pub(crate) pds: Origin,
    pub(crate) version: i64,
    token: Zeroizing<String>,
    ath: String,
    key: ProofKey,
    /// The time from which the database is asked again, in milliseconds since the epoch. Until then
    /// requests use this credential without any lookup.
    due: AtomicI64,
    pub(super) expires_at: Option<Timestamp>,
}

/// The parts of a credential.
pub(super) struct CredentialParts {
    pub(super) link: LinkId,
    pub(super) did: Did,
    pub(super) pds: Origin,
    pub(super) version: i64,
    pub(super) token: Zeroizing<String>,
    pub(super) key: P256PrivateKey,
    pub(super) issued_at: Timestamp,
    pub(super) expires_at: Option<Timestamp>,
}

/// The headers of a request to the PDS.
pub(crate) struct SignedCall<'a> {
    token: &'a str,
    proof: String,
}

impl SignedCall<'_> {
    /// The value for `Authorization: DPoP …`.
    pub(crate) fn token(&self) -> &str {
        self.token
    }

    /// The value of `DPoP`.
    pub(crate) fn proof(&self) -> &str {
        &self.proof
    }
}

impl Weigh for Credential {
    fn heap_bytes(&self) -> usize {
        let texts = allocation(self.token.capacity()) + allocation(self.ath.capacity());
        self.link.heap_bytes() + self.did.heap_bytes() + self.pds.heap_bytes() + texts + PROOF_KEY
    }
}

/// What a proof key keeps beside itself: the texts that all of its proofs have.
const PROOF_KEY: usize = 512;

impl Credential {
    pub(super) fn new(parts: CredentialParts) -> Self {
        let due = due_at(&parts.link, parts.version, parts.issued_at, parts.expires_at);
        Self {
            ath: ath(&parts.token),
            key: ProofKey::new(parts.key),
            due: AtomicI64::new(due.map_or(i64::MAX, Timestamp::as_millis)),
            link: parts.link,
            did: parts.did,
            pds: parts.pds,
            version: parts.version,
            token: parts.token,
            expires_at: parts.expires_at,
        }
    }

    /// A credential with a token and key chosen by a test.
    #[cfg(test)]
    pub(crate) fn for_tests(link: &str, did: &Did, pds: &Origin, version: i64, token: &str) -> Self {
        Self::new(CredentialParts {
            link: link.into(),
            did: did.clone(),
            pds: pds.clone(),
            version,
            token: Zeroizing::new(token.to_owned()),
            key: super::vault::fresh_key(),
            issued_at: Timestamp::from_millis(0),
            expires_at: None,
        })
    }

    /// Signs one attempt at `path` (without query) of the PDS: the token and a fresh proof.
    pub(crate) fn sign(
        &self,
        method: &str,
        path: &str,
        nonce: Option<&str>,
        now: Timestamp,
    ) -> SignedCall<'_> {
        // Each attempt has a proof of its own, because servers refuse a `jti` that they have seen.
        let proof = self.key.sign(&ProofClaims {
            jti: &random::id(),
            htm: method,
            // The origin that was verified, and not the `Host` of the client's request.
            htu: &format!("{}{path}", self.pds),
            iat: backdated(now.as_seconds()),
            nonce,
            ath: Some(&self.ath),
        });
        SignedCall { token: &self.token, proof }
    }

    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        now.as_millis() >= self.due.load(Ordering::Relaxed)
    }

    /// Uses this version until then, because its refresh has to wait.
    pub(super) fn put_off(&self, until: Timestamp) {
        // Never beyond the token's own life, where the database must be asked in any case.
        let end = self.expires_at.map_or(until, |end| until.min(end.minus(LAST_MOMENT)));
        // Relaxed suffices: a thread that sees the old value only asks the database once more.
        self.due.store(end.as_millis(), Ordering::Relaxed);
    }

    /// Whether the token can still be used, as far as its server has said.
    pub(super) fn is_valid(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|end| now < end.minus(LAST_MOMENT))
    }
}

/// The time from which a token is refreshed before its next use: a minute or a tenth of its life
/// before its end, whichever is more, but never in its first half. `None` means only when the PDS
/// refuses it.
///
/// Spread by ±20 %, so that sessions of one server are not all due at once. The spread comes from a
/// hash and not from chance, so every replica finds the same time.
pub(super) fn due_at(
    link: &LinkId,
    version: i64,
    issued_at: Timestamp,
    expires_at: Option<Timestamp>,
) -> Option<Timestamp> {
    // Some servers do not say when a token expires. The PDS then says it with a 401.
    let expires_at = expires_at?;
    let lifetime = expires_at.since(issued_at);
    let digest = Sha256::new().chain_update(link.as_str()).chain_update(version.to_be_bytes()).finalize();
    // 80 % to 120 %.
    let spread = 80 + u32::from(digest.first().copied().unwrap_or_default()) * 40 / 255;
    let margin = (lifetime / 10).max(LEAST_MARGIN) * spread / 100;
    // Without this bound a token that lives for a minute would be due at once.
    Some(expires_at.minus(margin.min(lifetime / 2)))
}

const LEAST_MARGIN: Duration = Duration::from_mins(1);
/// The margin for the time that a request travels.
const LAST_MOMENT: Duration = Duration::from_secs(5);

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({} of {} v{} [sealed])", self.link, self.did, self.version)
    }
}

impl fmt::Debug for SignedCall<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[sealed]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::assert_weighs;

    const START: Timestamp = Timestamp::from_seconds(1_000_000);

    #[test]
    fn a_token_is_due_a_little_before_its_end_and_not_for_all_at_once() {
        let due = |link: &str, seconds| {
            let end = START.plus(Duration::from_secs(seconds));
            due_at(&link.into(), 1, START, Some(end)).unwrap().since(START).as_secs()
        };
        let hour: Vec<u64> = (0..50).map(|number| due(&number.to_string(), 3600)).collect();
        assert!(hour.iter().all(|due| (3600 - 432..=3600 - 288).contains(due)), "{hour:?}");
        assert!(hour.iter().max() > hour.iter().min());
        assert!((300 - 72..=300 - 48).contains(&due("x", 300)));
        assert_eq!(due("x", 60), 30, "one that lives a minute is not always due");
        assert_eq!(due_at(&"x".into(), 1, START, None), None);
    }

    #[test]
    fn a_credential_weighs_its_texts_and_what_its_key_keeps() {
        let of = |link: &str, did: &str, pds: &str, token: &str| {
            Credential::for_tests(link, &did.parse().unwrap(), &pds.parse().unwrap(), 1, token)
        };
        let (did, pds) = ("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", "https://pds.example.com");
        assert_weighs(|length| of(&"x".repeat(length), did, pds, "t"));
        assert_weighs(|length| of("x", &format!("did:web:{}", "a".repeat(length)), pds, "t"));
        assert_weighs(|length| of("x", did, &format!("https://{}example.com", "a.".repeat(length / 2)), "t"));
        assert_weighs(|length| of("x", did, pds, &"t".repeat(length)));
        let texts = did.len() + 2 * pds.len() + ath("t").len();
        assert!(of("x", did, pds, "t").heap_bytes() >= texts + PROOF_KEY);
    }

    #[test]
    fn a_put_off_token_is_used_to_its_last_moment_and_no_longer() {
        let origin = "https://pds.example.com".parse().unwrap();
        let did = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa".parse().unwrap();
        let mut credential = Credential::for_tests("x", &did, &origin, 1, "t");
        credential.expires_at = Some(START.plus(Duration::from_mins(1)));
        credential.put_off(START.plus(Duration::from_secs(30)));
        assert!(!credential.is_due(START.plus(Duration::from_secs(29))));
        credential.put_off(START.plus(Duration::from_mins(5)));
        assert!(credential.is_due(START.plus(Duration::from_secs(55))));
        assert!(!credential.is_valid(START.plus(Duration::from_secs(55))));
        assert!(!format!("{credential:?}").contains("\"t\""));
    }
}
