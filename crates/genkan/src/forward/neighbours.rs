//! What forwarding asks of the rooms beside it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::headers::Signed;
use crate::accounts::Home;
use crate::base::Origin;
use crate::fleet::{Host, HostId};
use crate::identity::{Freshness, PdsLocation, PdsLocationError};
use crate::limits::Verdict;
use crate::oauth::{AccessError, Call, GrantCaller, Onward};
use crate::routing::target::Target;
use crate::sessions::Caller;

/// The rooms that know callers, homes and hosts.
///
/// Whatever begins with `recall` answers from memory at once, or `None`; it is on the path of every request. The
/// others may wait for a database. Tests put fixed answers here.
pub(crate) trait Neighbours: Clone + 'static {
    /// Whom a token speaks for, if it was checked before.
    fn recall_caller(&self, token: &str) -> Option<Result<Arc<Caller>, TokenError>>;

    /// Checks a token.
    async fn check_caller(&self, token: &str) -> Result<Arc<Caller>, TokenError>;

    /// Checks a token that is bound to a key, and the proof that came with it, which is used up.
    async fn check_grant(&self, token: &str, call: &Call<'_>) -> Result<Arc<GrantCaller>, AccessError>;

    /// Whether a token that came as Bearer says, unchecked, that it is of a grant and not of a session.
    fn is_bearer_grant(&self, token: &str) -> bool;

    /// Checks a token of a grant that is bound to no key.
    async fn check_bearer_grant(&self, token: &str) -> Result<Arc<GrantCaller>, AccessError>;

    /// What signs for a linked account, if it is in memory and fresh.
    fn recall_link(&self, link: &str) -> Option<Arc<dyn Signer>>;

    /// The same by the database; it is refreshed where that is due.
    async fn find_link(&self, link: &str) -> Result<Arc<dyn Signer>, LinkError>;

    /// The PDS does not take this version's token any more: a newer one.
    async fn renew_link(&self, link: &str, version: i64) -> Result<Arc<dyn Signer>, LinkError>;

    /// The PDS does not take a renewed token either: it is over.
    async fn link_refused(&self, link: &str);

    /// The nonce that a PDS wants to see in proofs of this link.
    fn link_nonce(&self, link: &str, pds: &Origin) -> Option<HeardNonce>;

    /// A PDS said which nonce it wants to see next.
    fn hear_link_nonce(&self, link: &str, pds: &Origin, nonce: &str);

    /// What a request of this caller carries to its home. `None`: the host cannot be signed for.
    fn sign_onward(&self, caller: &GrantCaller, host: &Host, method: &str, path: &str) -> Option<Onward>;

    /// A host said which nonce it wants to see.
    fn hear_nonce(&self, host: &HostId, nonce: &str);

    /// A host did not take what was signed for this caller.
    fn forget_onward(&self, caller: &GrantCaller);

    /// The nonce that clients' proofs should carry from now on.
    fn nonce(&self) -> String;

    /// Where an account lives, if memory knows. `Some(None)`: memory knows that it does not live here.
    #[expect(
        clippy::option_option,
        reason = "three answers: not known here, known to be nobody's, and a home"
    )]
    fn recall_home(&self, account: &Target<'_>) -> Option<Option<Arc<Home>>>;

    /// Where an account lives, or `None` if not here.
    async fn find_home(&self, account: &Target<'_>) -> Result<Option<Arc<Home>>, Unavailable>;

    /// Where an account lives that has no home here, if memory knows.
    fn recall_pds_location(&self, account: &Target<'_>) -> Option<Result<PdsLocation, PdsLocationError>>;

    /// Where an account lives that has no home here.
    async fn find_pds_location(
        &self,
        account: &Target<'_>,
        freshness: Freshness,
    ) -> Result<PdsLocation, PdsLocationError>;

    /// Whether an origin is one of ours.
    fn ours(&self, origin: &Origin) -> Option<Ours>;

    /// Whether a handle is one that we give out, so that nobody else knows more of it.
    fn is_own_handle(&self, handle: &str) -> bool;

    /// A host of the fleet.
    fn host(&self, id: &HostId) -> Option<Arc<Host>>;

    /// Counts a request of this client, passed on by that host.
    fn count(&self, client: IpAddr, host: Option<&str>) -> Result<(), OverLimit>;
}

/// Signs for a linked account at its PDS: one version of its tokens.
pub(crate) trait Signer: Send + Sync {
    /// The one origin that gets the token.
    fn pds(&self) -> &Origin;

    fn version(&self) -> i64;

    /// Token and a fresh proof for one attempt.
    fn sign(&self, method: &str, path: &str, nonce: Option<&str>) -> Signed;
}

/// A nonce that was heard.
#[derive(Clone)]
pub(crate) struct HeardNonce {
    pub(crate) nonce: Arc<str>,
    /// How long ago.
    pub(crate) age: Duration,
}

/// Why nothing signs for a linked account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkError {
    /// The person has to sign in again.
    Gone,
    /// Its server is away for the moment.
    Unavailable { retry_after: Duration },
    /// Our database is.
    Storage,
    /// A fault of our own.
    Broken,
}

/// What an origin of ours is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ours {
    /// Genkan itself.
    Genkan,
    /// A host of the fleet.
    Host,
}

/// Why a token opens nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenError {
    /// Not readable, or nobody's here.
    Unknown,
    /// Not good for this.
    Invalid,
    /// Out of date, or revoked.
    Expired,
    /// It could not be checked.
    Unavailable,
}

/// The database is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unavailable;

/// The client has asked for more than it may.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OverLimit {
    pub(crate) verdict: Verdict,
    /// Seconds until another try is worth it.
    pub(crate) retry_after: u64,
}
