//! Refresh tokens: `ref-` and 64 hexadecimal characters, made of a grant's id, a generation, and a code over both.

use std::fmt::Write as _;

use data_encoding::HEXLOWER;
use ring::hmac;

use crate::base::{Secret, random};
use crate::keys::Ring;

/// Makes and reads refresh tokens. The key is the same on every replica.
#[derive(Clone, Debug)]
pub(super) struct RefreshTokens {
    key: hmac::Key,
}

/// Which token of which grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) grant: String,
    pub(super) generation: i64,
}

impl RefreshTokens {
    pub(super) fn new(ring: &Ring) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, &*ring.derived("oauth refresh tokens")) }
    }

    pub(super) fn make(&self, place: &Place) -> Secret<String> {
        let generation = u32::try_from(place.generation).expect("no grant is refreshed four billion times");
        let mut token = format!("{PREFIX}{}{generation:08x}", place.grant);
        let code = hmac::sign(&self.key, token.as_bytes());
        for byte in code.as_ref().iter().take(CODE_BYTES) {
            let _ = write!(token, "{byte:02x}");
        }
        Secret::new(token)
    }

    /// `None`: it is none of ours.
    pub(super) fn read(&self, token: &str) -> Option<Place> {
        let body = token.strip_prefix(PREFIX).filter(|body| body.len() == BODY && is_hex(body))?;
        let (grant, rest) = body.split_at_checked(GRANT)?;
        let (generation, _) = rest.split_at_checked(8)?;
        let place =
            Place { grant: grant.to_owned(), generation: u32::from_str_radix(generation, 16).ok()?.into() };
        let ours = self.make(&place);
        subtle::ConstantTimeEq::ct_eq(ours.expose().as_bytes(), token.as_bytes())
            .unwrap_u8()
            .eq(&1)
            .then_some(place)
    }
}

/// A fresh grant's id.
pub(super) fn grant_id() -> String {
    HEXLOWER.encode(&random::bytes::<{ GRANT / 2 }>())
}

/// A fresh access token's `jti`: the grant it belongs to, and which token. Hosts want exactly this form.
pub(super) fn token_id(grant: &str) -> String {
    format!("{TOKEN_PREFIX}{grant}{}", HEXLOWER.encode(&random::bytes::<4>()))
}

/// The grant of an access token.
pub(super) fn grant_of_token_id(token_id: &str) -> Option<&str> {
    let body = token_id.strip_prefix(TOKEN_PREFIX).filter(|body| body.len() == 32 && is_hex(body))?;
    body.get(..GRANT)
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

const PREFIX: &str = "ref-";
const TOKEN_PREFIX: &str = "tok-";
/// Hexadecimal characters of a grant's id.
const GRANT: usize = 24;
const CODE_BYTES: usize = 16;
const BODY: usize = GRANT + 8 + CODE_BYTES * 2;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Clock;
    use crate::base::seal::Sealer;
    use crate::db::Db;
    use crate::db::on_each_database;

    on_each_database!(only_our_tokens_are_read, another_database_makes_other_tokens);

    async fn tokens(db: &Db) -> RefreshTokens {
        let sealer = Sealer::new(&Secret::new([1; 32]));
        RefreshTokens::new(&Ring::open(db, &Clock::System, sealer, None).await.unwrap())
    }

    async fn only_our_tokens_are_read(db: Db) {
        let tokens = tokens(&db).await;
        let place = Place { grant: grant_id(), generation: 77 };
        let token = tokens.make(&place).expose().clone();
        assert_eq!((token.len(), &token[..4]), (68, "ref-"));
        assert_eq!(tokens.read(&token), Some(place.clone()));
        assert_eq!(tokens.make(&place).expose(), &token, "the same again");
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
        let place = Place { grant: grant_id(), generation: 0 };
        let other = RefreshTokens { key: hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]) };
        assert_eq!(tokens(&db).await.read(other.make(&place).expose()), None);
    }

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
