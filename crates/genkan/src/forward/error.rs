//! What can go wrong on the way to a host and back.

use std::time::Duration;

use crate::limits::Verdict;
use crate::wire::messages;

/// Why a request was not answered by a host. The HTTP side of it is told by the edge.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The token is not one of ours, or not readable.
    #[error("Token could not be verified")]
    InvalidToken,
    /// The token was good once.
    #[error("{}", messages::EXPIRED_TOKEN)]
    ExpiredToken,
    /// The token was made for another host than the one that keeps the account now.
    #[error("{}", messages::OUTDATED_AUDIENCE)]
    Moved,
    /// A token that is bound to a key, or the proof with it, is not good; in the words of RFC 9449 §7.1.
    #[error("{why}")]
    Grant { code: &'static str, why: String },
    /// The host wants another nonce in our proof, and the request's body cannot be sent again.
    #[error("the account's host was not ready for this upload; send it again")]
    NotReady,
    /// A token that nobody here knows, where an account elsewhere might speak.
    #[error("{why}")]
    UnknownToken { why: String },
    /// The header that names a way of authentication names one that we do not have.
    #[error("unsupported auth method")]
    AuthMethod,
    /// Nothing of the kind is carried for an account that lives elsewhere.
    #[error("{NOT_CARRIED}")]
    NotCarried,
    /// The app was not allowed to do this.
    #[error("the token's scope does not allow this method")]
    Scope { by_proof: bool },
    /// The session at the account's own server is over.
    #[error("the session at the account's own server is over: sign in again")]
    LinkGone { by_proof: bool },
    /// The session at the account's own server cannot be used for the moment.
    #[error("the account's own server does not confirm the session at the moment")]
    LinkUnavailable { retry_after: Duration },
    /// A fault of our own.
    #[error("{}", messages::INTERNAL)]
    Internal,
    /// The host does not take what we signed.
    #[error("the account's host does not accept this server's credentials at the moment")]
    UpstreamAuth,
    /// The account that a read names has no home here.
    #[error("Could not find repo: {0}")]
    RepoNotFound(String),
    /// The account's DID or handle leads nowhere.
    #[error("the account's DID or handle could not be resolved")]
    Unresolved,
    /// The account's document names no PDS that can be used.
    #[error("the account's DID document names no PDS that can be called")]
    NoPds,
    /// The PDS is none that we call. One text for all reasons: the reasons are about our network.
    #[error("the account's PDS is not one that this server calls")]
    NotAllowed,
    /// The read needs a token here.
    #[error("{}", messages::AUTHENTICATION_REQUIRED)]
    NoToken,
    /// More than a client, an account or a PDS has left.
    #[error("{}", messages::TOO_MANY_REQUESTS)]
    OverLimit(OverLimit),
    /// A query came with a body.
    #[error("A request body was provided when none was expected")]
    UnexpectedBody,
    /// The body is longer than the method may have.
    #[error("request entity too large")]
    TooLarge,
    /// The body stopped coming.
    #[error("the request body did not arrive in time")]
    SlowClient,
    /// The client left while sending its body, or sent it broken.
    #[error("{}", messages::TRUNCATED_BODY)]
    BrokenUpload,
    /// The request came through us before.
    #[error("the request has come through this server before")]
    Loop,
    /// The host cannot be reached, broke off, or did not speak HTTP.
    #[error("the account's host could not be reached")]
    Unreachable(#[source] Cause),
    /// The host failed repeatedly just now, so it is not asked.
    #[error("the account's host could not be reached lately and is left alone for a moment")]
    Resting,
    /// The host said nothing within the limit.
    #[error("the account's host did not answer in time")]
    SlowHost(Duration),
    /// As many requests are under way at this host as it may get.
    #[error("too many requests are under way for the account's host")]
    Crowded,
    /// What we need to know is out of reach for now.
    #[error("the service is not available for the moment")]
    Unavailable,
}

impl From<http1::Error> for Error {
    fn from(error: http1::Error) -> Self {
        use http1::Error as E;
        match error {
            E::Unreachable(cause) => Self::Unreachable(cause.into()),
            E::SlowServer(limit) => Self::SlowHost(limit),
            E::BreakerOpen => Self::Resting,
            E::PoolFull => Self::Crowded,
            E::BodyTooLarge => Self::TooLarge,
            E::SlowBody => Self::SlowClient,
            E::BrokenBody => Self::BrokenUpload,
        }
    }
}

/// What a host did wrong, for the log.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Cause {
    #[error(transparent)]
    Connection(#[from] http1::Cause),
    #[error("its answer is longer than any may be")]
    TooLong,
    #[error("it sent us elsewhere")]
    Redirect,
}

/// A client, an account or a PDS is over its rate limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OverLimit {
    pub(crate) verdict: Verdict,
    /// Seconds until another try is worth it.
    pub(crate) retry_after: u64,
}

/// Where to call what is not carried.
pub(crate) const NOT_CARRIED: &str = "This method is not forwarded: call it at the account's own PDS, or at a public \
    AppView such as https://public.api.bsky.app";
