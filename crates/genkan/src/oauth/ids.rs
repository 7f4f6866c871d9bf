//! The ids of grants, requests, codes and tokens.

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

use crate::base::random;

/// Creates a grant's id.
pub(super) fn grant_id() -> String {
    HEXLOWER.encode(&random::bytes::<{ GRANT / 2 }>())
}

/// Creates an access token's `jti` from its grant and a random part. Hosts require exactly this
/// form.
pub(super) fn token_id(grant: &str) -> String {
    format!("{TOKEN_PREFIX}{grant}{}", HEXLOWER.encode(&random::bytes::<4>()))
}

/// Returns the grant of an access token's `jti`.
pub(super) fn grant_of_token_id(token_id: &str) -> Option<&str> {
    let body = token_id.strip_prefix(TOKEN_PREFIX).filter(|body| body.len() == 32 && is_hex(body))?;
    body.get(..GRANT)
}

/// The hash by which a code is stored.
pub(super) fn hash(secret: &str) -> String {
    HEXLOWER.encode(&Sha256::digest(secret.as_bytes()))
}

pub(super) fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

pub(super) const URI_PREFIX: &str = "urn:ietf:params:oauth:request_uri:";

const TOKEN_PREFIX: &str = "tok-";
/// Hexadecimal characters of a grant's id.
pub(super) const GRANT: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_id_names_its_grant() {
        let grant = grant_id();
        let id = token_id(&grant);
        assert_eq!(id.len(), 36);
        assert_eq!(grant_of_token_id(&id), Some(grant.as_str()));
        for wrong in
            ["", "tok-", "tok-zz", &id[..35], &id.to_uppercase(), "ref-00000000000000000000000000000000"]
        {
            assert_eq!(grant_of_token_id(wrong), None, "{wrong}");
        }
    }
}
