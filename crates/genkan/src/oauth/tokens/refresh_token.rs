//! Refresh tokens: `ref-` and 64 hexadecimal characters, made of a grant's id, a generation, and a
//! code over both.

use std::fmt::Write as _;

use ring::hmac;

use crate::base::Secret;
use crate::keys::Ring;
use crate::oauth::ids::{GRANT, GrantId, is_hex};

/// Makes and reads refresh tokens. The key is the same on every replica.
#[derive(Clone, Debug)]
pub(in crate::oauth) struct RefreshTokens {
    key: hmac::Key,
}

/// The grant and generation of a refresh token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::oauth) struct RefreshTokenId {
    pub(in crate::oauth) grant: GrantId,
    pub(in crate::oauth) generation: i64,
}

impl RefreshTokens {
    pub(in crate::oauth) fn new(ring: &Ring) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, &*ring.derived("oauth refresh tokens")) }
    }

    pub(in crate::oauth) fn make(&self, id: &RefreshTokenId) -> Secret<String> {
        let generation = u32::try_from(id.generation).expect("no grant is refreshed four billion times");
        let mut token = format!("{PREFIX}{}{generation:08x}", id.grant);
        let code = hmac::sign(&self.key, token.as_bytes());
        for byte in code.as_ref().iter().take(CODE_BYTES) {
            let _ = write!(token, "{byte:02x}");
        }
        Secret::new(token)
    }

    /// Reads a refresh token and checks its code. Returns `None` if Genkan did not make it.
    pub(in crate::oauth) fn read(&self, token: &str) -> Option<RefreshTokenId> {
        let body = token.strip_prefix(PREFIX).filter(|body| body.len() == BODY && is_hex(body))?;
        let (grant, rest) = body.split_at_checked(GRANT)?;
        let (generation, _) = rest.split_at_checked(8)?;
        let id = RefreshTokenId {
            grant: grant.into(),
            generation: u32::from_str_radix(generation, 16).ok()?.into(),
        };
        // Compared as a whole and in constant time. No other spelling of the same token is
        // accepted.
        let ours = self.make(&id);
        subtle::ConstantTimeEq::ct_eq(ours.expose().as_bytes(), token.as_bytes())
            .unwrap_u8()
            .eq(&1)
            .then_some(id)
    }
}

const PREFIX: &str = "ref-";
const CODE_BYTES: usize = 16;
const BODY: usize = GRANT + 8 + CODE_BYTES * 2;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Clock;
    use crate::base::seal::Sealer;
    use crate::db::Db;
    use crate::db::on_each_database;
    use crate::oauth::ids::GrantId;

    on_each_database!(only_our_tokens_are_read, another_database_makes_other_tokens);

    async fn tokens(db: &Db) -> RefreshTokens {
        let sealer = Sealer::new(&Secret::new([1; 32]));
        RefreshTokens::new(&Ring::open(db, &Clock::of_process(), sealer, None).await.unwrap())
    }

    async fn only_our_tokens_are_read(db: Db) {
        let tokens = tokens(&db).await;
        let id = RefreshTokenId { grant: GrantId::fresh(), generation: 77 };
        let token = tokens.make(&id).expose().clone();
        assert_eq!((token.len(), &token[..4]), (68, "ref-"));
        assert_eq!(tokens.read(&token), Some(id.clone()));
        assert_eq!(tokens.make(&id).expose(), &token, "the same again");
        for at in [4, 20, 30, 40, 67] {
            let mut forged = token.clone().into_bytes();
            forged[at] = if forged[at] == b'0' { b'1' } else { b'0' };
            assert_eq!(tokens.read(std::str::from_utf8(&forged).unwrap()), None, "{at}");
        }
        for wrong in
            ["", "ref-", &token[4..], &token[..67], &token.to_uppercase(), &format!("{token}0"), "ref-é"]
        {
            assert_eq!(tokens.read(wrong), None, "{wrong}");
        }
    }

    async fn another_database_makes_other_tokens(db: Db) {
        let id = RefreshTokenId { grant: GrantId::fresh(), generation: 0 };
        let other = RefreshTokens { key: hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]) };
        assert_eq!(tokens(&db).await.read(other.make(&id).expose()), None);
    }
}
