//! The path from what a person types to the server that speaks for the account. It is followed
//! again before tokens are used.
//!
//! Handle → DID → document → PDS → protected resource → authorization server. Nothing comes from a
//! cache, because credentials are sent to the result. The guarded client checks every address.

use std::sync::Arc;

use genkan_protocol::did_document::{AccountFacts, PdsError};
use genkan_protocol::oauth::server_metadata::{AuthorizationServer, ProtectedResource};
use genkan_protocol::syntax::{Did, Handle};
use http::header::CONTENT_TYPE;
use http::{StatusCode, Uri};
use serde::{Deserialize, Serialize};

use crate::base::Origin;
use crate::base::fetch::target::Target;
use crate::base::fetch::{Answer, GuardedClient, GuardedError, Limits, Pool};
use crate::identity::{self, Documents, Freshness, Handles};

/// The name of an account, or only of its server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Identifier {
    Handle(Handle),
    Did(Did),
    Address(Origin),
}

/// An authorization server, as it is stored with sign-ins and sessions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Server {
    pub(crate) issuer: String,
    pub(super) authorize: String,
    pub(super) push: String,
    pub(super) token: String,
    pub(super) revoke: Option<String>,
}

impl Server {
    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("texts are plain data")
    }

    pub(super) fn of_json(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

/// An account's PDS, and the server that speaks for the account.
#[derive(Clone, Debug)]
pub(super) struct Authority {
    pub(super) account: Arc<AccountFacts>,
    pub(super) pds: Origin,
    pub(super) server: Server,
}

/// Why discovery failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum DiscoveryError {
    #[error("there is no such account")]
    NoSuchAccount,
    /// The owner ended the identity.
    #[error("the identity was ended")]
    Ended,
    #[error("{0}")]
    Unusable(Arc<str>),
    /// Another try may succeed.
    #[error("{0}")]
    Away(Arc<str>),
    /// Nothing was sent, because of trouble that is Genkan's own. The servers may well be healthy.
    #[error("{0}")]
    NotTried(Arc<str>),
}

/// Resolves accounts and their servers. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Discovery {
    pub(super) documents: Documents,
    pub(super) handles: Handles,
    pub(super) guarded: GuardedClient,
    /// Private origins that the operator listed.
    pub(super) listed: Arc<[Origin]>,
}

impl Identifier {
    /// Reads what a person typed or pasted. Returns `None` if it is neither name nor address.
    pub(crate) fn parse(typed: &str) -> Option<Self> {
        // Removed before trimming: behind an invisible character a space would not be trimmed.
        let text: String = typed.chars().filter(|character| !is_invisible(*character)).collect();
        // People paste profile links and mentions, so `at://` and `@` are accepted.
        let text = text.trim().trim_start_matches("at://");
        let text = text.strip_prefix('@').unwrap_or(text).trim();
        if text.starts_with("did:") {
            return text.parse().ok().map(Self::Did);
        }
        if let Some((scheme, rest)) = text.split_once("://") {
            let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
            // An origin has no user name, so `https://good.example@evil.example` does not parse.
            return format!("{}://{authority}", scheme.to_ascii_lowercase()).parse().ok().map(Self::Address);
        }
        let text: String =
            text.chars().map(|character| if DOTS.contains(&character) { '.' } else { character }).collect();
        text.to_lowercase().parse().ok().map(Self::Handle)
    }
}

/// Characters that stand for a dot in other scripts (UTS #46).
const DOTS: [char; 3] = ['\u{3002}', '\u{ff0e}', '\u{ff61}'];

/// Invisible characters, such as direction marks, which are copied along with a handle from a page.
fn is_invisible(character: char) -> bool {
    matches!(character, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
        || character.is_control()
}

impl Discovery {
    /// Returns this discovery with the places of another pool.
    pub(super) fn in_pool(&self, pool: Pool) -> Self {
        Self {
            documents: self.documents.in_pool(pool),
            handles: self.handles.in_pool(pool),
            guarded: self.guarded.in_pool(pool),
            listed: Arc::clone(&self.listed),
        }
    }

    /// Finds the account of this handle and requires that the account claims the handle.
    pub(super) async fn of_handle(&self, handle: &Handle) -> Result<Authority, DiscoveryError> {
        let did = self.handles.resolve(handle, Freshness::Asked).await.map_err(|error| unresolved(&error))?;
        let found = self.of_did(&did).await?;
        // Both directions are needed: the owner of the domain names the DID, and the owner of the
        // DID claims the handle. Either one alone could name a victim.
        if found.account.claims_handle(handle) { Ok(found) } else { Err(DiscoveryError::NoSuchAccount) }
    }

    pub(super) async fn of_did(&self, did: &Did) -> Result<Authority, DiscoveryError> {
        let account =
            self.documents.resolve(did, Freshness::Asked).await.map_err(|error| unresolved(&error))?;
        // No path is accepted except a trailing slash: tokens are sent to an origin, and Genkan
        // chooses everything after it.
        let pds = account.pds.clone().map_err(|error| match error {
            PdsError::Missing => unusable("the identity names no PDS"),
            PdsError::NotAnOrigin(_) => unusable("the identity's PDS is not an origin"),
        })?;
        // Refuses what the URL's text already shows. The guarded client checks the resolved address
        // when it connects.
        self.check(pds.as_str())?;
        let server = self.of_pds(&pds).await?;
        Ok(Authority { account, pds, server })
    }

    /// Finds the server that speaks for accounts on this PDS.
    pub(super) async fn of_pds(&self, pds: &Origin) -> Result<Server, DiscoveryError> {
        let resource = self.get(&format!("{pds}/.well-known/oauth-protected-resource")).await?;
        let (issuer, resource) = if resource.status == StatusCode::NOT_FOUND {
            // An older PDS, or an entryway whose address a person typed. It is its own server, and
            // need not list itself.
            (pds.to_string(), None)
        } else {
            let issuer = ProtectedResource::parse_issuer(json_of(&resource)?, pds.as_str())
                .map_err(|error| unusable(&format!("what {} says: {error}", pds.host())))?;
            (issuer, Some(pds.as_str()))
        };
        let server = self.get(&format!("{issuer}/.well-known/oauth-authorization-server")).await?;
        let server = AuthorizationServer::parse(json_of(&server)?, &issuer, resource)
            .map_err(|error| unusable(&format!("what {issuer} says: {error}")))?;
        let server = Server {
            issuer,
            authorize: server.authorization_endpoint,
            push: server.pushed_authorization_request_endpoint,
            token: server.token_endpoint,
            revoke: server.revocation_endpoint,
        };
        let endpoints =
            [Some(&server.authorize), Some(&server.push), Some(&server.token), server.revoke.as_ref()];
        // The metadata is text of the other server. Its endpoints could point into the operator's
        // private network.
        for endpoint in endpoints.into_iter().flatten() {
            self.check(endpoint)?;
        }
        Ok(server)
    }

    /// Returns the handle if it resolves to this account at the moment.
    pub(super) async fn confirmed_handle(&self, account: &AccountFacts) -> Option<Handle> {
        let handle = account.handle.clone()?;
        let did = self.handles.resolve(&handle, Freshness::Asked).await.ok()?;
        (did == account.id).then_some(handle)
    }

    fn check(&self, url: &str) -> Result<(), DiscoveryError> {
        let uri: Uri = url.parse().map_err(|_| unusable("an address is not a URL"))?;
        Target::check(&uri, &self.listed).map_err(|refusal| unusable(&format!("{url}: {refusal}")))?;
        Ok(())
    }

    async fn get(&self, url: &str) -> Result<Answer, DiscoveryError> {
        let answer = self.guarded.get(url, "application/json", &Limits::DOCUMENT).await;
        let answer = answer.map_err(|error| strange(url, &error))?;
        match answer.status {
            // 5xx and 429 pass without a change at the other server, so they do not condemn it.
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                Err(DiscoveryError::Away(format!("{url} answered {}", status.as_u16()).into()))
            }
            StatusCode::OK | StatusCode::NOT_FOUND => Ok(answer),
            status => Err(unusable(&format!("{url} answered {}", status.as_u16()))),
        }
    }
}

/// Returns the body of an answer that is exactly 200 and JSON.
fn json_of(answer: &Answer) -> Result<&[u8], DiscoveryError> {
    // RFC 8414 §3.2 and RFC 9728 §3.2 require status 200 and `application/json`.
    let kind = answer.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if answer.status == StatusCode::OK && kind.eq_ignore_ascii_case("application/json") {
        Ok(&answer.body)
    } else {
        Err(unusable("it serves no OAuth metadata as JSON"))
    }
}

fn unresolved(error: &identity::Error) -> DiscoveryError {
    match error {
        identity::Error::NotFound(_) => DiscoveryError::NoSuchAccount,
        identity::Error::Ended => DiscoveryError::Ended,
        identity::Error::Unsupported(_) | identity::Error::Unusable(_) => unusable(&error.to_string()),
        identity::Error::Passing(_) | identity::Error::Busy => DiscoveryError::Away(error.to_string().into()),
    }
}

fn strange(url: &str, error: &GuardedError) -> DiscoveryError {
    // Only failures that can pass without a change at the other server are worth another try.
    let text = format!("{url}: {error}");
    match error {
        error if error.is_own_trouble() => DiscoveryError::NotTried(text.into()),
        error if error.is_passing() => DiscoveryError::Away(text.into()),
        _ => unusable(&text),
    }
}

fn unusable(text: &str) -> DiscoveryError {
    DiscoveryError::Unusable(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_type_is_understood() {
        let handle = |text: &str| Some(Identifier::Handle(text.parse().unwrap()));
        let did = |text: &str| Some(Identifier::Did(text.parse().unwrap()));
        let address = |text: &str| Some(Identifier::Address(text.parse().unwrap()));
        for (typed, read) in [
            ("ann.example.com", handle("ann.example.com")),
            (" @Ann.Example.COM ", handle("ann.example.com")),
            ("\u{202a}ann.example.com\u{202c}", handle("ann.example.com")),
            ("ann。example．com", handle("ann.example.com")),
            ("at://ann.example.com", handle("ann.example.com")),
            ("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", did("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa")),
            ("did:web:example.com", did("did:web:example.com")),
            ("https://PDS.example.com/", address("https://pds.example.com")),
            ("HTTPS://pds.example.com/x?y", address("https://pds.example.com")),
            ("https://user@pds.example.com", None),
            ("ann", None),
            ("ann@example.com", None),
            ("", None),
        ] {
            assert_eq!(Identifier::parse(typed), read, "{typed:?}");
        }
    }
}
