//! Finding out where a request goes, and by whose credentials.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use genkan_protocol::syntax::Did;
use http::request::Parts;
use http::{HeaderMap, HeaderValue};

use super::engine::{Forwarder, method_of};
use super::error::Error;
use super::external::LinkedDestination;
use super::external::permission;
use super::neighbours::{Neighbours, Ours, TokenError};
use crate::accounts::Home;
use crate::config::TargetReads;
use crate::fleet::{Host, HostId};
use crate::identity::{Freshness, PdsLocation, PdsLocationError};
use crate::oauth::{self, AccessError, Call, GrantCaller};
use crate::routing::target::Target;
use crate::routing::{PresentedToken, Way};

/// Who is at the door.
#[derive(Debug)]
pub(crate) struct Visitor {
    /// The client's address.
    pub(crate) ip: IpAddr,
    /// The same as a host is told it.
    pub(crate) address: HeaderValue,
}

/// Where a request goes, and by whose credentials.
#[derive(Debug)]
pub(crate) enum Destination {
    /// To a host of the fleet.
    Home(HomeDestination),
    /// To the PDS of an account that lives elsewhere, without credentials.
    Read(PdsLocation),
    /// To the PDS of the caller, who lives elsewhere.
    Linked(LinkedDestination),
}

/// To a host of the fleet.
#[derive(Debug)]
pub(crate) struct HomeDestination {
    pub(super) host: Arc<Host>,
    pub(super) by: By,
}

/// Whose credentials a request carries to its host.
#[derive(Debug)]
pub(super) enum By {
    Nobody,
    /// The caller's own session token, as it came.
    Session,
    /// A token and a proof of ours, within this caller's grant.
    Grant(Arc<GrantCaller>),
}

impl HomeDestination {
    pub(super) const fn by_caller(&self) -> bool {
        !matches!(self.by, By::Nobody)
    }
}

impl Destination {
    /// The host of the fleet that it leads to, if it is one.
    pub(crate) fn host(&self) -> Option<&HostId> {
        match self {
            Self::Home(destination) => Some(&destination.host.id),
            Self::Read(_) | Self::Linked(_) => None,
        }
    }

    /// The name of where it leads, for the log.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Home(destination) => destination.host.id.as_str(),
            Self::Read(place) => place.pds.host(),
            Self::Linked(destination) => destination.pds().host(),
        }
    }
}

impl<N: Neighbours> Forwarder<N> {
    /// Finds the host that a way leads to. Uses up the proof of a request that has one.
    pub(crate) async fn find_destination(&self, way: Way<'_>, request: &Parts) -> Result<Destination, Error> {
        match way {
            // Nobody asks for it: what Genkan answers itself goes to no host.
            Way::Local => Err(Error::Unavailable),
            Way::Caller { shown } => {
                let (did, audience, by) = match self.speaker(shown, request).await? {
                    Speaker::Home(did, audience, by) => (did, audience, by),
                    Speaker::Linked(caller) => {
                        let by_proof = matches!(shown, PresentedToken::Dpop(_));
                        return Box::pin(self.linked_destination(caller, by_proof, request)).await;
                    }
                };
                let account = Target::Did(Cow::Borrowed(did.as_str()));
                // A token outlives an account's stay.
                match self.home(&account).await? {
                    Some(home) if home.host == audience => self.home_destination(&home, by),
                    _ => Err(by.moved()),
                }
            }
            Way::Target { account, shown } => match self.home(&account).await? {
                Some(home) => self.home_destination(&home, By::Nobody),
                None => Box::pin(self.external_destination(account, shown, request)).await,
            },
            Way::SelfRead { account, shown } => {
                let Some(home) = self.home(&account).await? else {
                    return Box::pin(self.external_destination(account, Some(shown), request)).await;
                };
                match self.speaker(shown, request).await {
                    Ok(Speaker::Home(did, audience, by)) if did == home.did && audience == home.host => {
                        self.home_destination(&home, by)
                    }
                    // The account's own client has not heard of our nonce yet, and will come again with it.
                    Err(error @ Error::Grant { code: "use_dpop_nonce", .. })
                        if claims(shown, home.did.as_str()) =>
                    {
                        Err(error)
                    }
                    // Any other token is as good as none here: a public read must not fail for a stale one.
                    _ => self.home_destination(&home, By::Nobody),
                }
            }
        }
    }

    /// To the PDS of an account that has no home here.
    async fn external_destination(
        &self,
        account: Target<'_>,
        shown: Option<PresentedToken<'_>>,
        request: &Parts,
    ) -> Result<Destination, Error> {
        let not_here = || {
            Error::RepoNotFound(match &account {
                Target::Did(did) => did.clone().into_owned(),
                Target::Handle(handle) => handle.clone(),
            })
        };
        match self.external.policy.target_reads {
            TargetReads::Public => {}
            TargetReads::Authenticated => {
                drop(self.speaker(shown.ok_or(Error::NoToken)?, request).await?);
            }
            TargetReads::Off => return Err(not_here()),
        }
        if matches!(&account, Target::Handle(handle) if self.neighbours.is_own_handle(handle)) {
            return Err(not_here());
        }
        let found = match self.neighbours.recall_pds_location(&account) {
            Some(known) => known,
            None => self.neighbours.find_pds_location(&account, Freshness::Remembered).await,
        };
        let place = found.map_err(|problem| match problem {
            PdsLocationError::Unresolved(_) | PdsLocationError::Unconfirmed => Error::Unresolved,
            PdsLocationError::NoPds => Error::NoPds,
        })?;
        match self.neighbours.ours(&place.pds) {
            Some(Ours::Genkan) => Err(Error::Loop),
            // It should live here, and does not.
            Some(Ours::Host) => Err(not_here()),
            None => Ok(Destination::Read(place)),
        }
    }

    /// To the PDS of the caller, who lives elsewhere.
    async fn linked_destination(
        &self,
        caller: Arc<GrantCaller>,
        by_proof: bool,
        request: &Parts,
    ) -> Result<Destination, Error> {
        if !permission::is_carried(method_of(request)) {
            return Err(Error::NotCarried);
        }
        if !permission::allows(caller.scope.as_str(), method_of(request)) {
            return Err(Error::Scope { by_proof });
        }
        let signer = if let Some(known) = self.neighbours.recall_link(&caller.grant) {
            known
        } else {
            let found = self.neighbours.find_link(&caller.grant).await;
            found.map_err(|error| LinkedDestination::trouble(error, by_proof))?
        };
        Ok(Destination::Linked(LinkedDestination { caller, by_proof, signer }))
    }

    /// Whose request it is, and what it will carry.
    async fn speaker(&self, shown: PresentedToken<'_>, request: &Parts) -> Result<Speaker, Error> {
        match shown {
            PresentedToken::Bearer(token) => {
                let checked = match self.neighbours.recall_caller(token) {
                    Some(known) => known,
                    None if self.neighbours.is_bearer_grant(token) => {
                        check_auth_method(&request.headers)?;
                        let caller = self.neighbours.check_bearer_grant(token).await;
                        return Ok(Speaker::of(caller.map_err(bearer_refused)?));
                    }
                    None => self.neighbours.check_caller(token).await,
                };
                let caller = checked.map_err(|problem| match problem {
                    TokenError::Unknown if permission::is_carried(method_of(request)) => {
                        Error::UnknownToken { why: Error::InvalidToken.to_string() }
                    }
                    TokenError::Unknown | TokenError::Invalid => Error::InvalidToken,
                    TokenError::Expired => Error::ExpiredToken,
                    TokenError::Unavailable => Error::Unavailable,
                })?;
                Ok(Speaker::Home(caller.did.clone(), caller.audience.clone(), By::Session))
            }
            PresentedToken::Dpop(token) => {
                check_auth_method(&request.headers)?;
                let call = Call {
                    method: request.method.as_str(),
                    path: request.uri.path(),
                    proofs: oauth::proofs(&request.headers),
                };
                Ok(Speaker::of(self.neighbours.check_grant(token, &call).await?))
            }
        }
    }

    async fn home(&self, account: &Target<'_>) -> Result<Option<Arc<Home>>, Error> {
        match self.neighbours.recall_home(account) {
            Some(known) => Ok(known),
            None => self.neighbours.find_home(account).await.map_err(|_| Error::Unavailable),
        }
    }

    fn home_destination(&self, home: &Home, by: By) -> Result<Destination, Error> {
        // Homes name hosts of the fleet; between a host's removal and the news of it there may be none.
        let host = self.neighbours.host(&home.host).ok_or(Error::Unavailable)?;
        Ok(Destination::Home(HomeDestination { host, by }))
    }
}

/// Whom a request speaks for.
enum Speaker {
    /// An account with a home, the host that the token is for, and what the request will carry.
    Home(Did, HostId, By),
    /// An account that lives elsewhere.
    Linked(Arc<GrantCaller>),
}

impl Speaker {
    fn of(caller: Arc<GrantCaller>) -> Self {
        match &caller.place {
            oauth::Place::Host(host) => Self::Home(caller.did.clone(), host.clone(), By::Grant(caller)),
            oauth::Place::Link => Self::Linked(caller),
        }
    }
}

impl By {
    /// The account lives elsewhere: a client with a session signs in again, one with a grant refreshes.
    pub(super) fn moved(&self) -> Error {
        match self {
            Self::Nobody | Self::Session => Error::Moved,
            Self::Grant(_) => {
                Error::Grant { code: "invalid_token", why: "the token is for another host".to_owned() }
            }
        }
    }
}

impl From<AccessError> for Error {
    fn from(error: AccessError) -> Self {
        if let Some(code) = error.code() {
            return Self::Grant { code, why: error.to_string() };
        }
        tracing::warn!(cause = &error as &dyn std::error::Error, "a token could not be checked");
        Self::Unavailable
    }
}

/// Apps of other gateways say by this header which kind of token they send; there is one kind.
fn check_auth_method(headers: &HeaderMap) -> Result<(), Error> {
    let mut said = headers.get_all("habitat-auth-method").iter();
    let is_known = said.all(|method| method.as_bytes().trim_ascii().eq_ignore_ascii_case(b"oauth"));
    if is_known { Ok(()) } else { Err(Error::AuthMethod) }
}

/// A token that is bound to no key is not good.
fn bearer_refused(error: AccessError) -> Error {
    if error.code().is_some() { Error::UnknownToken { why: error.to_string() } } else { error.into() }
}

/// Whether a token says, unchecked, that it is this account's.
fn claims(shown: PresentedToken<'_>, did: &str) -> bool {
    match shown {
        PresentedToken::Bearer(_) => false,
        PresentedToken::Dpop(token) => oauth::claimed_account(token).is_some_and(|claimed| claimed == *did),
    }
}
