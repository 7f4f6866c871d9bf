//! Access tokens: for one host, signed with its key, bound to the client's key.

use genkan_protocol::oauth::access_token::{self, AccessClaims, Confirmation};

use super::grant::Grant;
use super::sql::scopes;
use super::{Error, OAuth, refresh_token};
use crate::accounts::Account;
use crate::base::{Secret, Timestamp};
use crate::db::Tx;

/// What the token endpoint answers.
#[derive(Debug)]
pub(crate) struct Tokens {
    pub(crate) access: Secret<String>,
    /// `None` for clients that did not ask for the grant type.
    pub(crate) refresh: Option<Secret<String>>,
    pub(crate) scope: String,
    /// Seconds.
    pub(crate) expires_in: u64,
    pub(crate) sub: String,
}

impl OAuth {
    /// Tokens of a grant's current generation. `scope`: with permission sets expanded.
    pub(super) async fn mint(
        &self,
        tx: &mut Tx,
        grant: &Grant,
        account: &Account,
        scope: String,
        now: Timestamp,
    ) -> Result<Tokens, Error> {
        let no_home = || Error::NoHome(account.host.to_string());
        let host = self.fleet.host(&account.host).ok_or_else(no_home)?;
        let key = self.ring.host_key(account.host.as_str()).ok_or_else(no_home)?;
        let mut written = scope.clone();
        if written.len() > LONGEST {
            written = access_token::scope_reference(&scope);
            scopes::keep(tx, &written, &scope, now).await?;
        }
        // Never beyond the grant's own end.
        let ends = now.plus(self.settings.access_lifetime).min(grant.expires_at);
        let jkt = grant.dpop_key.parse();
        let claims = AccessClaims {
            iss: self.settings.issuer.clone(),
            aud: host.did.as_str().to_owned(),
            sub: account.did.clone(),
            scope: written,
            client_id: grant.client_id.clone(),
            cnf: Confirmation {
                jkt: jkt.map_err(|_| crate::db::Error::corrupt("oauth_grants", "dpop_key", &grant.id))?,
            },
            jti: refresh_token::token_id(&grant.id),
            iat: now.as_seconds(),
            exp: ends.as_seconds(),
        };
        // Hosts refuse tokens that name a key.
        let access = Secret::new(access_token::sign(&key.private, &claims));
        let place = refresh_token::Place { grant: grant.id.clone(), generation: grant.generation };
        Ok(Tokens {
            access,
            refresh: grant.refreshable.then(|| self.refresh_tokens.make(&place)),
            scope,
            expires_in: u64::try_from(ends.as_seconds() - now.as_seconds()).unwrap_or(0),
            sub: account.did.to_string(),
        })
    }

    /// The whole scope behind a reference, as hosts ask for it.
    pub(crate) async fn dereference(&self, reference: &str) -> Result<Option<String>, Error> {
        Ok(scopes::find(&self.db, reference).await?)
    }
}

/// Bytes of scope that a token has room for; proxies before a host often take headers of 8 KiB and no more.
const LONGEST: usize = 3 * 1024;
