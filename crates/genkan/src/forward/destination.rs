//! The destination of a call: the server that gets it, and the credential for it.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use genkan_protocol::syntax::Did;
use http::{HeaderMap, Response};
use hyper::body::Incoming;

use super::answer::AnswerBody;
use super::call::Call;
use super::engine::Forwarder;
use super::error::Error;
use super::external::permission;
use super::headers::has_passed;
use super::home::{HomeCredential, HomeDestination};
use super::linked::LinkedDestination;
use super::proxied_service;
use super::reads::ReadDestination;
use super::rooms::{OwnServer, Rooms, TokenError};
use crate::accounts::Home;
use crate::config::TargetReads;
use crate::fleet::HostId;
use crate::identity::{Freshness, PdsLocation, PdsLocationError};
use crate::oauth::{self, AccessError, GrantCaller};
use crate::routing::target::Target;
use crate::routing::{PresentedToken, Route};

/// Where a call goes, and with which credential.
#[derive(Debug)]
pub(crate) enum Destination {
    /// To a host of the fleet.
    Home(HomeDestination),
    /// To the external PDS of the account that a read is about, without credentials.
    Read(ReadDestination),
    /// To the external PDS of the caller.
    Linked(LinkedDestination),
}

impl Destination {
    /// The host of the fleet that the call goes to, if it is one.
    pub(crate) fn host(&self) -> Option<&HostId> {
        match self {
            Self::Home(destination) => Some(&destination.host.id),
            Self::Read(_) | Self::Linked(_) => None,
        }
    }

    /// The server's name, for the log.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Home(destination) => destination.host.id.as_str(),
            Self::Read(destination) => destination.place.pds.host(),
            Self::Linked(destination) => destination.pds().host(),
        }
    }
}

impl<R: Rooms> Forwarder<R> {
    /// Sends a call to its destination. Returns when the head of the answer has come.
    pub(crate) async fn send(
        &self,
        destination: &Destination,
        call: &Call<'_>,
        body: Incoming,
    ) -> Result<Response<AnswerBody>, Error> {
        if has_passed(&call.request.headers, &self.via) {
            // A host whose origin leads back to Genkan would otherwise pass the same call in a
            // circle.
            return Err(Error::Loop);
        }
        match destination {
            Destination::Home(destination) => self.send_home(destination, call, body).await,
            // Boxed: most calls go to a host, and their future should not be as large as these are.
            Destination::Read(destination) => Box::pin(self.read_external(destination, call, &body)).await,
            Destination::Linked(destination) => Box::pin(self.call_linked(destination, call, body)).await,
        }
    }

    /// Finds the destination of a call. A proof that comes with the call is then used up.
    pub(crate) async fn find_destination(&self, call: &Call<'_>) -> Result<Destination, Error> {
        match &call.route {
            Route::Caller { shown } => {
                let service = call.check_service(self.external.names())?;
                let destination = self.callers_pds(*shown, call).await?;
                // Only a caller who is known causes a lookup, and only for a host of the fleet: an
                // external PDS is not in the operator's network.
                if let (Some(name), Destination::Home(home)) = (service, &destination) {
                    self.check_service_name(name, &home.credential, proxied_service::NOT_PUBLIC).await?;
                }
                Ok(destination)
            }
            Route::Target { account, shown } => match self.home(account).await? {
                Some(home) => {
                    self.home_destination(&home, HomeCredential::None { reader: self.reader(*shown) })
                }
                None => Box::pin(self.external_destination(account, *shown, call)).await,
            },
            Route::SelfRead { account, shown } => {
                let Some(home) = self.home(account).await? else {
                    return Box::pin(self.external_destination(account, Some(*shown), call)).await;
                };
                // A self-read keeps its token only if it is the account's own, and for the host
                // that keeps the account now.
                match self.speaker(*shown, call).await {
                    Ok(Speaker::Home(by)) if by.caller() == Some((&home.did, &home.host)) => {
                        self.home_destination(&home, by)
                    }
                    // The account's own client does not know Genkan's nonce yet. It repeats the
                    // call with it.
                    Err(error @ Error::Grant { code: "use_dpop_nonce", .. })
                        if claims(*shown, home.did.as_str()) =>
                    {
                        Err(error)
                    }
                    // Another account's token, or an invalid one, counts as no token: anyone may
                    // make this read, so an expired token must not fail it.
                    _ => {
                        let reader = self.reader(Some(*shown));
                        self.home_destination(&home, HomeCredential::None { reader })
                    }
                }
            }
        }
    }

    /// The PDS of the account that a token speaks for, which gets a token of that account.
    async fn callers_pds(&self, shown: PresentedToken<'_>, call: &Call<'_>) -> Result<Destination, Error> {
        let by = match self.speaker(shown, call).await? {
            Speaker::Home(by) => by,
            Speaker::Linked(caller) => {
                let by_proof = matches!(shown, PresentedToken::Dpop(_));
                return Box::pin(self.linked_destination(caller, by_proof, call)).await;
            }
        };
        let Some((did, audience)) = by.caller() else { return Err(by.moved()) };
        let account = Target::Did(Cow::Borrowed(did.as_str()));
        // The account may have moved since the token was issued. Its new home does not accept the
        // token.
        match self.home(&account).await? {
            Some(home) if home.host == *audience => self.home_destination(&home, by),
            _ => Err(by.moved()),
        }
    }

    /// Returns the external PDS of an account without a home here.
    async fn external_destination(
        &self,
        account: &Target<'_>,
        shown: Option<PresentedToken<'_>>,
        call: &Call<'_>,
    ) -> Result<Destination, Error> {
        let not_here = || {
            Error::RepoNotFound(match account {
                Target::Did(did) => did.clone().into_owned(),
                Target::Handle(handle) => handle.clone(),
            })
        };
        match self.external.policy.target_reads {
            TargetReads::Public => {}
            TargetReads::Authenticated => {
                // Only the check counts: the read itself goes out without credentials.
                drop(self.speaker(shown.ok_or(Error::NoToken)?, call).await?);
            }
            TargetReads::Off => return Err(not_here()),
        }
        // Genkan is the authority for its own handles. Another server must not answer for a name
        // that nobody has here.
        if matches!(account, Target::Handle(handle) if self.rooms.is_own_handle(handle)) {
            return Err(not_here());
        }
        // Before the lookup: anyone may ask for it, and another server answers it.
        let permit = Rc::new(self.external.admit_read(call.client.ip)?);
        let found = match self.rooms.recall_pds_location(account) {
            Some(known) => known,
            None => self.rooms.find_pds_location(account, Freshness::Remembered, call.client.network()).await,
        };
        let place = found.map_err(|problem| match problem {
            PdsLocationError::Unresolved(_) | PdsLocationError::Unconfirmed => Error::Unresolved,
            PdsLocationError::NoPds => Error::NoPds,
        })?;
        match self.rooms.own_server(&place.pds) {
            Some(OwnServer::Genkan) => Err(Error::Loop),
            // The document names a host of the fleet, but that host does not have the account.
            Some(OwnServer::Host) => Err(not_here()),
            None => {
                let reader = self.checked_reader(shown, call).await;
                let lives_there = reader.as_ref().is_some_and(|reader| self.is_same_pds(reader, &place));
                Ok(Destination::Read(ReadDestination { place, permit, reader, lives_there }))
            }
        }
    }

    /// Whether an account is known to be at the PDS of another one. Nothing is looked up.
    fn is_same_pds(&self, reader: &Did, place: &PdsLocation) -> bool {
        let account = Target::Did(Cow::Borrowed(reader.as_str()));
        *reader == place.did
            || matches!(self.rooms.recall_pds_location(&account), Some(Ok(known)) if known.pds == place.pds)
    }

    /// The account that reads without a credential, if its token was checked before. People without
    /// an account share fewer places at a server, which a few of them can fill.
    fn reader(&self, shown: Option<PresentedToken<'_>>) -> Option<Did> {
        self.rooms.recall_account(shown?)
    }

    /// As [`Self::reader`], also for a token that was not checked before: the first call with a new
    /// token may be a read. An invalid token counts as none, because anyone may make the read, and so
    /// does one that cannot be checked soon.
    async fn checked_reader(&self, shown: Option<PresentedToken<'_>>, call: &Call<'_>) -> Option<Did> {
        if let Some(known) = self.reader(shown) {
            return Some(known);
        }
        match tokio::time::timeout(READER_CHECK, self.speaker(shown?, call)).await.ok()?.ok()? {
            Speaker::Home(by) => by.caller().map(|(did, _)| did.clone()),
            Speaker::Linked(caller) => Some(caller.did.clone()),
        }
    }

    /// Returns the external PDS of the caller, if its grant allows the method.
    async fn linked_destination(
        &self,
        caller: Arc<GrantCaller>,
        by_proof: bool,
        call: &Call<'_>,
    ) -> Result<Destination, Error> {
        if !call.row.external {
            return Err(Error::NotCarried);
        }
        if !permission::allows(caller.scope.as_str(), call.row.linked_scope) {
            return Err(Error::Scope { by_proof });
        }
        let signer = if let Some(known) = self.rooms.recall_link(&caller.grant) {
            known
        } else {
            let found = self.rooms.find_link(&caller.grant).await;
            found.map_err(|error| LinkedDestination::error(error, by_proof))?
        };
        Ok(Destination::Linked(LinkedDestination { caller, by_proof, signer }))
    }

    /// Returns the account that a token speaks for, and the credential for its call.
    async fn speaker(&self, shown: PresentedToken<'_>, call: &Call<'_>) -> Result<Speaker, Error> {
        match shown {
            PresentedToken::Bearer(token) => {
                let checked = match self.rooms.recall_caller(token) {
                    Some(known) => known,
                    None if self.rooms.is_bearer_grant(token) => {
                        check_auth_method(&call.request.headers)?;
                        let caller = self.rooms.check_bearer_grant(token).await;
                        return Ok(Speaker::of(caller.map_err(bearer_refused)?));
                    }
                    None => self.rooms.check_caller(token).await,
                };
                let caller = checked.map_err(|problem| match problem {
                    // Linked accounts are told 401 for a token that is not valid, and home accounts
                    // 400, as a host does. An unknown token could be of either kind.
                    TokenError::Unknown if call.row.external => {
                        Error::UnknownToken { why: Error::InvalidToken.to_string() }
                    }
                    TokenError::Unknown | TokenError::Invalid => Error::InvalidToken,
                    TokenError::Expired => Error::ExpiredToken,
                    TokenError::Unavailable => Error::Unavailable,
                })?;
                Ok(Speaker::Home(HomeCredential::Session(caller)))
            }
            PresentedToken::Dpop(token) => {
                check_auth_method(&call.request.headers)?;
                let proven = oauth::Call {
                    method: call.request.method.as_str(),
                    path: call.request.uri.path(),
                    proofs: oauth::proofs(&call.request.headers),
                };
                Ok(Speaker::of(self.rooms.check_grant(token, &proven).await?))
            }
        }
    }

    async fn home(&self, account: &Target<'_>) -> Result<Option<Arc<Home>>, Error> {
        match self.rooms.recall_home(account) {
            Some(known) => Ok(known),
            None => self.rooms.find_home(account).await.map_err(|_| Error::Unavailable),
        }
    }

    fn home_destination(&self, home: &Home, by: HomeCredential) -> Result<Destination, Error> {
        // A home names a host of the fleet. For a moment after the host's removal there may be
        // none.
        let host = self.rooms.host(&home.host).ok_or(Error::Unavailable)?;
        Ok(Destination::Home(HomeDestination { host, credential: by }))
    }
}

/// How long a read waits for the check of its token, which it does not need.
const READER_CHECK: Duration = Duration::from_millis(250);

/// The account that a call speaks for.
enum Speaker {
    /// An account with a home, and the credential for its call.
    Home(HomeCredential),
    /// A linked account.
    Linked(Arc<GrantCaller>),
}

impl Speaker {
    fn of(caller: Arc<GrantCaller>) -> Self {
        match &caller.place {
            oauth::CallerPlace::Host(_) => Self::Home(HomeCredential::Grant(caller)),
            oauth::CallerPlace::Link => Self::Linked(caller),
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

/// Checks the header by which apps of other gateways name their kind of token. Genkan has one kind.
fn check_auth_method(headers: &HeaderMap) -> Result<(), Error> {
    let mut said = headers.get_all("habitat-auth-method").iter();
    let is_known = said.all(|method| method.as_bytes().trim_ascii().eq_ignore_ascii_case(b"oauth"));
    if is_known { Ok(()) } else { Err(Error::AuthMethod) }
}

/// The refusal of a grant's token that was sent as a Bearer token.
fn bearer_refused(error: AccessError) -> Error {
    if error.code().is_some() { Error::UnknownToken { why: error.to_string() } } else { error.into() }
}

/// Whether a token claims to be the account's. The claim is not verified.
fn claims(shown: PresentedToken<'_>, did: &str) -> bool {
    match shown {
        PresentedToken::Bearer(_) => false,
        PresentedToken::Dpop(token) => oauth::claimed_account(token).is_some_and(|claimed| claimed == *did),
    }
}
