//! What forwarding asks of other rooms, as traits.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use genkan_protocol::syntax::Did;

use super::headers::Signed;
use crate::accounts::Home;
use crate::base::Origin;
use crate::fleet::{Host, HostId};
use crate::identity::{Freshness, PdsLocation, PdsLocationError};
use crate::limits::{ClientNetwork, OverLimit};
use crate::oauth::{self, AccessError, GrantCaller, GrantId, Onward};
use crate::routing::PresentedToken;
use crate::routing::target::Target;
use crate::sessions::Caller;

/// Everything that forwarding asks of other rooms: three traits by need.
///
/// A function whose name begins with `recall` answers from memory at once; it is on the path of
/// every request. It returns `None` if memory does not know. Functions that begin with `find` and
/// `check` may wait for the database. Tests give fixed answers.
pub(crate) trait Rooms: Callers + FleetHosts + ExternalAccounts + Clone + 'static {}

impl<R: Callers + FleetHosts + ExternalAccounts + Clone + 'static> Rooms for R {}

/// Who calls: the tokens that clients present, and how often they may call.
pub(crate) trait Callers {
    /// The account that a session token speaks for, if the token was checked before.
    fn recall_caller(&self, token: &str) -> Option<Result<Arc<Caller>, TokenError>>;

    /// Checks a session token.
    async fn check_caller(&self, token: &str) -> Result<Arc<Caller>, TokenError>;

    /// Checks a token that is bound to a key, and its proof, which is then used up.
    async fn check_grant(&self, token: &str, call: &oauth::Call<'_>)
    -> Result<Arc<GrantCaller>, AccessError>;

    /// The account of a token that was checked before, if memory knows. A proof is not looked at, so
    /// the answer serves to count a call for the account and for nothing else.
    fn recall_account(&self, shown: PresentedToken<'_>) -> Option<Did>;

    /// Whether a Bearer token claims, unverified, to belong to a grant and not to a session.
    fn is_bearer_grant(&self, token: &str) -> bool;

    /// Checks a grant's token that is bound to no key.
    async fn check_bearer_grant(&self, token: &str) -> Result<Arc<GrantCaller>, AccessError>;

    /// Returns the nonce for clients' next proofs.
    fn nonce(&self) -> String;

    /// Counts a request of a client, possibly passed on by a host.
    fn count(&self, client: IpAddr, host: Option<&str>) -> Result<(), OverLimit>;
}

/// The hosts of the fleet: which accounts live there, and what Genkan signs for them.
pub(crate) trait FleetHosts {
    /// Returns the home of an account, if memory knows. `Some(None)` means that it has none here.
    #[expect(
        clippy::option_option,
        reason = "three answers: not known, known to have no home here, and a home"
    )]
    fn recall_home(&self, account: &Target<'_>) -> Option<Option<Arc<Home>>>;

    /// The home of an account, or `None` if it has none here.
    async fn find_home(&self, account: &Target<'_>) -> Result<Option<Arc<Home>>, Unavailable>;

    /// A host of the fleet.
    fn host(&self, id: &HostId) -> Option<Arc<Host>>;

    /// Returns the token and proof of a caller's request to its home, or `None` if Genkan cannot
    /// sign for the host.
    fn sign_onward(&self, caller: &GrantCaller, host: &Host, method: &str, path: &str) -> Option<Onward>;

    /// Remembers the nonce that a host demands next.
    fn hear_nonce(&self, host: &HostId, nonce: &str);

    /// Forgets what was signed for a caller, because its host refused it.
    fn forget_onward(&self, caller: &GrantCaller);
}

/// Accounts at external PDSes: where they live, and the links of those that signed in here.
pub(crate) trait ExternalAccounts {
    /// Returns the PDS of an account without a home here, if memory knows.
    fn recall_pds_location(&self, account: &Target<'_>) -> Option<Result<PdsLocation, PdsLocationError>>;

    /// The PDS of an account that has no home here, looked up for this client.
    async fn find_pds_location(
        &self,
        account: &Target<'_>,
        freshness: Freshness,
        client: ClientNetwork,
    ) -> Result<PdsLocation, PdsLocationError>;

    /// Returns which of the operator's servers has this origin. Such a server is not external.
    fn own_server(&self, origin: &Origin) -> Option<OwnServer>;

    /// Whether a handle is under one of Genkan's domains, so that no other server can answer for
    /// it.
    fn is_own_handle(&self, handle: &str) -> bool;

    /// The signer of the link of a grant, if it is in memory and fresh.
    fn recall_link(&self, grant: &GrantId) -> Option<Arc<dyn Signer>>;

    /// Returns the signer of the link of a grant from the database. Refreshes its token if that is due.
    async fn find_link(&self, grant: &GrantId) -> Result<Arc<dyn Signer>, LinkError>;

    /// Returns a newer signer after the PDS refused the token of this version.
    async fn renew_link(&self, grant: &GrantId, version: i64) -> Result<Arc<dyn Signer>, LinkError>;

    /// Ends the link of a grant whose PDS refuses even a renewed token of this version, unless the
    /// token was replaced meanwhile. Returns what the call is told.
    async fn link_refused(&self, grant: &GrantId, version: i64) -> LinkError;

    /// Returns the nonce that a PDS demands in proofs of the link of a grant.
    fn link_nonce(&self, grant: &GrantId, pds: &Origin) -> Option<LinkNonce>;

    /// Remembers the nonce that a PDS demands next.
    fn hear_link_nonce(&self, grant: &GrantId, pds: &Origin, nonce: &str);
}

/// Signs calls of a linked account at its PDS with one version of its tokens.
pub(crate) trait Signer: Send + Sync {
    /// The only origin that gets the token.
    fn pds(&self) -> &Origin;

    /// The version of the tokens, which grows with each refresh.
    fn version(&self) -> i64;

    /// Returns the token and a fresh proof for one attempt.
    fn sign(&self, method: &str, path: &str, nonce: Option<&str>) -> Signed;
}

/// A nonce that a PDS has sent.
#[derive(Clone)]
pub(crate) struct LinkNonce {
    pub(crate) nonce: Arc<str>,
    /// Time since it was received.
    pub(crate) age: Duration,
}

/// Why a link has no signer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkError {
    /// The person has to sign in again.
    Gone,
    /// The account's server does not answer at the moment.
    Unavailable { retry_after: Duration },
    /// The database does not answer.
    Storage,
    /// A fault of Genkan.
    Broken,
}

/// A server that the operator runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OwnServer {
    /// Genkan itself.
    Genkan,
    /// A host of the fleet.
    Host,
}

/// Why a session token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenError {
    /// Unreadable, or not issued by Genkan.
    Unknown,
    /// Issued by Genkan for another purpose.
    Invalid,
    /// Expired or revoked.
    Expired,
    /// The token could not be checked.
    Unavailable,
}

/// The database does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unavailable;
