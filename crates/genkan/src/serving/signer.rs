//! The signer for linked accounts: a link's credential, and the clock for its proofs.

use std::sync::Arc;

use zeroize::Zeroizing;

use crate::base::{Clock, Origin};
use crate::forward::{LinkCredential, LinkError, Signed, Signer};
use crate::links::{Credential, UseError};

/// A credential with the clock for its proofs.
pub(super) struct LinkSigner {
    pub(super) credential: Arc<Credential>,
    pub(super) clock: Clock,
}

impl Signer for LinkSigner {
    fn pds(&self) -> &Origin {
        &self.credential.pds
    }

    fn version(&self) -> i64 {
        self.credential.version
    }

    fn sign(&self, method: &str, path: &str, nonce: Option<&str>) -> Signed {
        let signed = self.credential.sign(method, path, nonce, self.clock.now());
        Signed::Link(LinkCredential {
            token: Zeroizing::new(signed.token().to_owned()),
            proof: signed.proof().to_owned(),
        })
    }
}

/// Why a link has no signer, in the words of forwarding.
pub(super) fn link_error(error: &UseError) -> LinkError {
    match error {
        UseError::Gone(_) => LinkError::Gone,
        UseError::Unavailable { retry_after } => LinkError::Unavailable { retry_after: *retry_after },
        UseError::Storage => LinkError::Storage,
        UseError::Broken => LinkError::Broken,
    }
}
