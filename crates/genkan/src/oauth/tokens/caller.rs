//! The caller of a request with an access token.

use genkan_protocol::oauth::dpop;
use genkan_protocol::oauth::jwk::Thumbprint;
use genkan_protocol::syntax::Did;

use super::onward::HostTokenSlot;
use crate::base::{Timestamp, Weigh, allocation};
use crate::fleet::HostId;
use crate::oauth::ids::GrantId;
use crate::oauth::scope::{ExpandedScope, TokenScope};

/// The account and grant of a request with an access token.
#[derive(Debug)]
pub(crate) struct GrantCaller {
    pub(crate) did: Did,
    pub(crate) client_id: String,
    pub(crate) grant: GrantId,
    pub(crate) place: CallerPlace,
    pub(crate) scope: ExpandedScope,
    pub(in crate::oauth) written: TokenScope,
    /// Thumbprint of the client's key. `None` means a Bearer token, which anyone who has it can
    /// use.
    pub(crate) key: Option<Thumbprint>,
    pub(crate) expires_at: Timestamp,
    /// The token that goes to the host instead. It is forgotten together with the caller's token.
    pub(in crate::oauth) minted: HostTokenSlot,
}

/// The kind of server that keeps the caller's account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CallerPlace {
    /// This host, when the token was issued.
    Host(HostId),
    /// An external PDS. The link has the grant's id.
    Link,
}

impl CallerPlace {
    pub(crate) fn is_host(&self, host: &HostId) -> bool {
        matches!(self, Self::Host(own) if own == host)
    }
}

impl GrantCaller {
    /// Checks that the token may be used without a proof.
    pub(crate) fn check_bearer(&self) -> Result<(), AccessError> {
        match self.key {
            None => Ok(()),
            Some(_) => {
                Err(AccessError::Token("the token is bound to a key: use the DPoP scheme and a proof"))
            }
        }
    }

    /// Forgets the token for the host, because the host refused it. The next request gets a new
    /// one.
    pub(crate) fn forget_onward(&self) {
        self.minted.set(None);
    }
}

impl Weigh for GrantCaller {
    fn heap_bytes(&self) -> usize {
        let claims = self.written.as_str().len() + self.client_id.len() + self.did.as_str().len();
        self.did.heap_bytes()
            + self.client_id.heap_bytes()
            + self.grant.heap_bytes()
            + self.scope.heap_bytes()
            + self.written.heap_bytes()
            // The token for the host comes later. It has the same claims, in Base64.
            + allocation(HOST_TOKEN + claims * 4 / 3)
    }
}

/// The bytes of a token for a host, and of what is kept with it, but for the claims that are long.
const HOST_TOKEN: usize = 1024;

#[cfg(test)]
impl GrantCaller {
    pub(crate) fn for_tests(did: &str, audience: &str) -> Self {
        Self {
            did: did.parse().unwrap(),
            client_id: "https://app.example.com/c.json".to_owned(),
            grant: "0".repeat(24).into(),
            place: CallerPlace::Host(audience.into()),
            scope: ExpandedScope::for_tests("atproto"),
            written: TokenScope::of_claim("atproto"),
            key: Some("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM".parse().unwrap()),
            expires_at: Timestamp::from_millis(i64::MAX),
            minted: HostTokenSlot::default(),
        }
    }
}

/// Why an access token or its proof is not accepted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AccessError {
    #[error("{0}")]
    Token(&'static str),
    #[error("a DPoP proof is required")]
    NoProof,
    #[error("exactly one DPoP header is allowed")]
    TwoProofs,
    #[error(transparent)]
    Proof(#[from] dpop::Error),
    #[error("the DPoP proof was already used")]
    Replayed,
    /// A failure of Genkan: the token cannot be checked now.
    #[error("the token cannot be checked now")]
    Unavailable,
    #[error(transparent)]
    Storage(#[from] crate::db::Error),
}

impl AccessError {
    /// The error code of RFC 9449 §7.1, or `None` for a failure of Genkan.
    pub(crate) fn code(&self) -> Option<&'static str> {
        match self {
            Self::Token(_) => Some("invalid_token"),
            Self::Proof(error) => Some(error.code()),
            Self::NoProof | Self::TwoProofs | Self::Replayed => Some("invalid_dpop_proof"),
            // Without a code, since the token may be valid. A client that is told otherwise would
            // sign its user out.
            Self::Unavailable | Self::Storage(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::assert_weighs;

    #[test]
    fn a_caller_weighs_its_texts_and_the_token_that_goes_to_its_host() {
        let caller = || GrantCaller::for_tests("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", "oak");
        assert_weighs(|length| {
            let did = format!("did:web:{}.example.com", "a".repeat(length));
            GrantCaller::for_tests(&did, "oak")
        });
        assert_weighs(|length| GrantCaller { client_id: "x".repeat(length), ..caller() });
        assert_weighs(|length| GrantCaller { grant: "x".repeat(length).into(), ..caller() });
        assert_weighs(|length| {
            let scope = ExpandedScope::for_tests(&"x".repeat(length));
            // A short scope is shared with the claim of the token.
            GrantCaller { written: scope.written(), scope, ..caller() }
        });
        assert_weighs(|length| {
            let written = TokenScope::of_claim(&format!("ref:{}", "x".repeat(length)));
            GrantCaller { written, ..caller() }
        });
        // The token for the host has the scope in Base64.
        let long = GrantCaller { written: TokenScope::of_claim(&"x".repeat(3000)), ..caller() };
        assert!(long.heap_bytes() >= caller().heap_bytes() + 3900);
    }
}
