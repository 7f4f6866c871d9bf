//! Access tokens: for one host, signed with its key, bound to the client's key.

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

/// What the token endpoint answers.
#[derive(Debug)]
pub(crate) struct Tokens {
    pub(crate) access: Secret<String>,
    /// `None` for clients that did not ask for the grant type.
    pub(crate) refresh: Option<Secret<String>>,
    pub(crate) scope: ExpandedScope,
    /// Seconds.
    pub(crate) expires_in: u64,
    pub(crate) sub: String,
    /// To the client's key; else they are plain Bearer tokens.
    pub(crate) bound: bool,
}

/// Whose tokens these are to be.
#[derive(Debug)]
pub(in crate::oauth) enum TokenSubject<'a> {
    Home(&'a Account),
    /// An account on an external PDS. The link finds out whether its server still answers for it.
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

/// The account of a grant, fit to get tokens.
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
    /// Tokens of a grant's current generation.
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
            // In the grant's transaction: a host can ask for the reference as soon as it sees the
            // token.
            scopes::keep(tx, &written, &scope, now).await?;
        }
        // Never beyond the grant's own end.
        let ends = now.plus(self.settings.access_lifetime).min(grant.expires_at);
        let cnf = match &grant.dpop_key {
            None => None,
            Some(key) => {
                let corrupt = |_| crate::db::Error::corrupt("oauth_grants", "dpop_key", &grant.id);
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
            // Hosts take neither tokens that are bound to no key nor ones that name theirs.
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
        let place = RefreshTokenId { grant: grant.id.clone(), generation: grant.generation };
        Ok(Tokens {
            access,
            refresh: grant.refreshable.then(|| self.refresh_tokens.make(&place)),
            scope,
            expires_in: u64::try_from(ends.as_seconds() - now.as_seconds()).unwrap_or(0),
            sub: subject.did().to_string(),
            bound: grant.dpop_key.is_some(),
        })
    }

    /// The whole scope behind a reference, as hosts ask for it.
    pub(crate) async fn dereference(&self, reference: &str) -> Result<Option<ExpandedScope>, Error> {
        Ok(scopes::find(&self.db, reference).await?)
    }
}
