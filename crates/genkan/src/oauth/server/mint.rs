//! Access tokens: addressed to one host, signed with its key, and bound to the client's key.

use genkan_protocol::oauth::access_token::{self, AccessClaims, Confirmation};
use genkan_protocol::syntax::Did;

use crate::accounts::{Account, Standing};
use crate::base::{Secret, Timestamp};
use crate::db::Tx;
use crate::keys::WebPurpose;
use crate::oauth::error::Error;
use crate::oauth::grant::Grant;
use crate::oauth::ids;
use crate::oauth::scope::ExpandedScope;
use crate::oauth::service::OAuth;
use crate::oauth::sql::scopes;
use crate::oauth::tokens::RefreshTokenId;

/// The answer of the token endpoint.
#[derive(Debug)]
pub(crate) struct Tokens {
    pub(crate) access: Secret<String>,
    /// `None` if the client did not request refresh tokens.
    pub(crate) refresh: Option<Secret<String>>,
    pub(crate) scope: ExpandedScope,
    /// Lifetime in seconds.
    pub(crate) expires_in: u64,
    pub(crate) sub: String,
    /// Whether the tokens are bound to the client's key. Otherwise they are plain Bearer tokens.
    pub(crate) bound: bool,
}

/// The account that tokens are for.
#[derive(Debug)]
pub(in crate::oauth) enum TokenSubject<'a> {
    Home(&'a Account),
    /// An account on an external PDS. The link finds out whether its server still speaks for it.
    Linked(Did),
}

impl TokenSubject<'_> {
    fn did(&self) -> &Did {
        match self {
            Self::Home(account) => &account.did,
            Self::Linked(did) => did,
        }
    }
}

/// The account of a grant, if it may get tokens.
pub(in crate::oauth) fn token_subject<'a>(
    linked: bool,
    did: &Did,
    account: Option<&'a Account>,
) -> Result<TokenSubject<'a>, Error> {
    if linked {
        return Ok(TokenSubject::Linked(did.clone()));
    }
    let active = account.filter(|account| account.standing() == Standing::Active);
    active.map(TokenSubject::Home).ok_or_else(|| Error::grant("the account is not active"))
}

impl OAuth {
    /// Issues tokens of a grant's current generation.
    pub(in crate::oauth) async fn mint(
        &self,
        tx: &mut Tx,
        grant: &Grant,
        subject: &TokenSubject<'_>,
        scope: ExpandedScope,
        now: Timestamp,
    ) -> Result<Tokens, Error> {
        let written = scope.written();
        if written.is_reference() {
            // Stored in the grant's transaction: a host can ask for the reference as soon as it
            // sees the token.
            scopes::keep(tx, &written, &scope, now).await?;
        }
        // Never beyond the end of the grant.
        let ends = now.plus(self.settings.access_lifetime).min(grant.expires_at);
        let cnf = match &grant.dpop_key {
            None => None,
            Some(key) => {
                let corrupt = |_| crate::db::Error::corrupt("oauth_grants", "dpop_key", grant.id.as_str());
                Some(Confirmation { jkt: key.parse().map_err(corrupt)? })
            }
        };
        let mut claims = AccessClaims {
            iss: self.settings.issuer.clone(),
            aud: self.settings.service_did.clone(),
            sub: subject.did().clone(),
            scope: written.as_str().to_owned(),
            client_id: grant.client_id.clone(),
            cnf,
            jti: ids::token_id(&grant.id),
            iat: now.as_seconds(),
            exp: ends.as_seconds(),
        };
        let access = match subject {
            // Hosts accept neither unbound tokens nor tokens with a `kid`.
            TokenSubject::Home(account) if claims.cnf.is_some() => {
                let no_home = || Error::NoHome(account.host.to_string());
                self.fleet.host(&account.host).ok_or_else(no_home)?.did.as_str().clone_into(&mut claims.aud);
                let key = self.ring.host_key(account.host.as_str()).ok_or_else(no_home)?;
                access_token::sign(&key.private, &claims)
            }
            TokenSubject::Home(_) | TokenSubject::Linked(_) => {
                let key = self.ring.web_key(WebPurpose::Tokens);
                access_token::sign_linked(&key.private, &key.id, &claims)
            }
        };
        let access = Secret::new(access);
        // Only the grant and its generation are in a refresh token. Everything else is in the row.
        let id = RefreshTokenId { grant: grant.id.clone(), generation: grant.generation };
        Ok(Tokens {
            access,
            refresh: grant.refreshable.then(|| self.refresh_tokens.make(&id)),
            scope,
            expires_in: u64::try_from(ends.as_seconds() - now.as_seconds()).unwrap_or(0),
            sub: subject.did().to_string(),
            bound: grant.dpop_key.is_some(),
        })
    }

    /// Returns the scope behind a reference, which hosts ask for.
    pub(crate) async fn dereference(&self, reference: &str) -> Result<Option<ExpandedScope>, Error> {
        Ok(scopes::find(&self.db, reference).await?)
    }
}
