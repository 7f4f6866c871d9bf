//! The ids of grants, requests, codes and tokens.

use std::fmt;

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

use crate::base::{id_type, random};

id_type!(
    /// Names a grant: 24 hexadecimal characters, which are a part of every token's id. The link of a
    /// linked account has the id of its grant.
    GrantId
);

impl GrantId {
    pub(super) fn fresh() -> Self {
        HEXLOWER.encode(&random::bytes::<{ GRANT / 2 }>()).into()
    }
}

id_type!(
    /// Names an authorization code by its hash. The code itself is not stored.
    CodeId
);

impl CodeId {
    pub(super) fn of(code: &str) -> Self {
        HEXLOWER.encode(&Sha256::digest(code)).into()
    }
}

/// Names a pushed authorization request (RFC 9126 §2.2). It is stored without the prefix that all
/// request URIs have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RequestUri(Box<str>);

impl RequestUri {
    pub(super) fn fresh() -> Self {
        // The URI is in the URL of the page. 128 random bits keep others from guessing it.
        Self(format!("req-{}", HEXLOWER.encode(&random::bytes::<16>())).into())
    }

    /// Reads the URI that a browser brings. Returns `None` if it is no URI of this kind.
    pub(super) fn parse(uri: &str) -> Option<Self> {
        uri.strip_prefix(URI_PREFIX).map(|id| Self(id.into()))
    }

    /// The id in the URI, `req-…`.
    pub(crate) fn id(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{URI_PREFIX}{}", self.0)
    }
}

/// Creates an access token's `jti` from its grant and a random part. Hosts require exactly this
/// form.
pub(super) fn token_id(grant: &GrantId) -> String {
    format!("{TOKEN_PREFIX}{grant}{}", HEXLOWER.encode(&random::bytes::<4>()))
}

/// Returns the grant of an access token's `jti`.
pub(super) fn grant_of_token_id(token_id: &str) -> Option<GrantId> {
    let body = token_id.strip_prefix(TOKEN_PREFIX).filter(|body| body.len() == 32 && is_hex(body))?;
    body.get(..GRANT).map(GrantId::from)
}

pub(super) fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

const URI_PREFIX: &str = "urn:ietf:params:oauth:request_uri:";

const TOKEN_PREFIX: &str = "tok-";
/// Hexadecimal characters of a grant's id.
pub(super) const GRANT: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_id_names_its_grant() {
        let grant = GrantId::fresh();
        let id = token_id(&grant);
        assert_eq!(id.len(), 36);
        assert_eq!(grant_of_token_id(&id), Some(grant));
        for wrong in
            ["", "tok-", "tok-zz", &id[..35], &id.to_uppercase(), "ref-00000000000000000000000000000000"]
        {
            assert_eq!(grant_of_token_id(wrong), None, "{wrong}");
        }
    }
}
