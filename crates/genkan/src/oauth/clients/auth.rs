//! Client authentication: none, or a signed assertion (RFC 7523).

use genkan_protocol::oauth::client_assertion::UnverifiedAssertion;
use genkan_protocol::oauth::client_metadata::Authentication;
use genkan_protocol::oauth::error::OAuthErrorCode as Code;
use genkan_protocol::oauth::jwk::Thumbprint;
use genkan_protocol::oauth::request::Form;

use super::lookup::{Client, Clients, Purpose};
use crate::base::Timestamp;
use crate::oauth::error::Error;
use crate::oauth::parameters::ClientAuth;

/// A client that has authenticated. The caller still has to check that its assertion is used for
/// the first time.
#[derive(Clone, Debug)]
pub(in crate::oauth) struct AuthenticatedClient {
    pub(in crate::oauth) auth: ClientAuth,
    /// The assertion's `jti`, and how long it must be remembered.
    pub(in crate::oauth) assertion: Option<(String, Timestamp)>,
}

impl Clients {
    /// Checks the client's credentials in `form`. `proof_key` is the key of the DPoP proof, which
    /// must differ from the client's.
    pub(in crate::oauth) async fn authenticate(
        &self,
        client: &Client,
        form: &Form,
        proof_key: Option<Thumbprint>,
        purpose: Purpose,
        issuer: &str,
    ) -> Result<AuthenticatedClient, Error> {
        let assertion = form.client_assertion()?;
        let (alg, keys) = match (&client.metadata.authentication, assertion) {
            (Authentication::None, None) => {
                return Ok(AuthenticatedClient { auth: ClientAuth::None, assertion: None });
            }
            // The client would think that its key protects it, while anyone could leave the
            // assertion out.
            (Authentication::None, Some(_)) => {
                let why = "client_assertion is not allowed: the client metadata has token_endpoint_auth_method \"none\"";
                return Err(Error::refused(Code::InvalidClient, why));
            }
            (Authentication::PrivateKeyJwt { .. }, None) => {
                let why =
                    "parameter \"client_assertion\" is required: the client metadata has private_key_jwt";
                return Err(Error::refused(Code::InvalidRequest, why));
            }
            (Authentication::PrivateKeyJwt { alg, keys }, Some(_)) => (*alg, keys),
        };
        let wrong = |error: &dyn std::fmt::Display| Error::refused(Code::InvalidClient, error.to_string());
        let assertion =
            UnverifiedAssertion::parse(assertion.unwrap_or_default()).map_err(|error| wrong(&error))?;
        let mut set = self.keys(client, keys, purpose, false).await?;
        // The client may have rotated its keys since the set was fetched.
        if assertion.key(&set).is_none() {
            // Nothing is known of this key, and the client's server is not asked for a caller who
            // holds nothing of it.
            if purpose == Purpose::Recall {
                return Err(Error::nothing_live());
            }
            set = self.keys(client, keys, purpose, true).await?;
        }
        let now = self.inner.clock.now().as_seconds();
        let verified = assertion.verify(&set, &client.id, issuer, now).map_err(|error| wrong(&error))?;
        if verified.alg != alg {
            return Err(wrong(&"client_assertion: \"alg\" differs from token_endpoint_auth_signing_alg"));
        }
        // With one key for both purposes, a DPoP key that leaked from a browser could stand for the
        // client itself.
        if proof_key == Some(verified.jkt) {
            let why = "the DPoP key must not be the key of the client assertion";
            return Err(Error::refused(Code::InvalidRequest, why));
        }
        Ok(AuthenticatedClient {
            auth: ClientAuth::PrivateKeyJwt {
                alg: verified.alg.as_str().to_owned(),
                kid: verified.kid,
                key: verified.jkt.to_string(),
            },
            assertion: Some((verified.jti, Timestamp::from_seconds(verified.forget_at))),
        })
    }

    /// Whether the client has removed the key with which it authenticated. `false` if its keys
    /// cannot be fetched now.
    pub(in crate::oauth) async fn lacks_key_of(
        &self,
        client: &Client,
        began: &ClientAuth,
        purpose: Purpose,
    ) -> Result<bool, Error> {
        let ClientAuth::PrivateKeyJwt { key, .. } = began else { return Ok(false) };
        // A client that has become public has removed all of its keys.
        let Authentication::PrivateKeyJwt { keys, .. } = &client.metadata.authentication else {
            return Ok(true);
        };
        match self.keys(client, keys, purpose, false).await {
            Ok(set) => Ok(!set.keys.iter().any(|known| known.thumbprint().as_str() == key)),
            // Only the client's own key set may end a grant. A set that cannot be fetched proves
            // nothing.
            Err(Error::Refused(_) | Error::Busy) => Ok(false),
            Err(other) => Err(other),
        }
    }
}
