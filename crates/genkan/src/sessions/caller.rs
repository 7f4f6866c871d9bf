//! The caller of a request with a session's access token.

use genkan_protocol::jwt::session::Scope;
use genkan_protocol::syntax::Did;

use crate::base::{Timestamp, Weigh, id_type};
use crate::fleet::HostId;

id_type!(
    /// The id of a session.
    SessionId
);

/// The caller of a request with a session's access token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) did: Did,
    /// The host that the token is addressed to. No longer the home after a move.
    pub(crate) audience: HostId,
    pub(crate) scope: Scope,
    pub(crate) session: SessionId,
    pub(crate) expires_at: Timestamp,
}

impl Weigh for Caller {
    fn heap_bytes(&self) -> usize {
        // The host's id is shared with the fleet.
        self.did.heap_bytes() + self.session.heap_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::assert_weighs;

    #[test]
    fn a_caller_weighs_its_texts() {
        let caller = |did: &str, session: &str| Caller {
            did: did.parse().unwrap(),
            audience: "oak".into(),
            scope: Scope::Access,
            session: session.into(),
            expires_at: Timestamp::from_millis(0),
        };
        assert_weighs(|length| caller(&format!("did:web:{}", "a".repeat(length)), "s"));
        assert_weighs(|length| caller("did:plc:ann", &"s".repeat(length)));
    }
}
