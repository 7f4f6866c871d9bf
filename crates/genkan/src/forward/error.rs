//! What can go wrong between a client's call and the answer of its PDS.

use std::time::Duration;

use crate::limits::OverLimit;
use crate::wire::messages;

/// Why a PDS did not answer a call. The edge chooses the status and the error name.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The token is unreadable, or Genkan did not issue it.
    #[error("Token could not be verified")]
    InvalidToken,
    /// The token has expired or was revoked.
    #[error("{}", messages::EXPIRED_TOKEN)]
    ExpiredToken,
    /// The token was issued for a host that no longer keeps the account.
    #[error("{}", messages::OUTDATED_AUDIENCE)]
    Moved,
    /// A DPoP-bound token or its proof is not valid. `code` is that of RFC 9449 §7.1.
    #[error("{why}")]
    Grant { code: &'static str, why: String },
    /// The host demands another nonce in Genkan's proof, and the request's body cannot be sent
    /// again.
    #[error("the account's host was not ready for this upload; send it again")]
    NotReady,
    /// An unknown token, for a method that linked accounts may call too.
    #[error("{why}")]
    UnknownToken { why: String },
    /// `Habitat-Auth-Method` names a method that Genkan does not have.
    #[error("unsupported auth method")]
    AuthMethod,
    /// Genkan does not forward this method for linked accounts.
    #[error("{NOT_CARRIED}")]
    NotCarried,
    /// The app's grant does not cover this method.
    #[error("the token's scope does not allow this method")]
    Scope { by_proof: bool },
    /// The session at the account's own server has ended.
    #[error("the session at the account's own server has ended; sign in again")]
    LinkGone { by_proof: bool },
    /// The session at the account's own server cannot be used at the moment.
    #[error("the account's own server does not confirm the session at the moment")]
    LinkUnavailable { retry_after: Duration },
    /// A fault of Genkan.
    #[error("{}", messages::INTERNAL)]
    Internal,
    /// The host does not accept what Genkan signed.
    #[error("the account's host does not accept this server's credentials at the moment")]
    UpstreamAuth,
    /// The account that a read names has no home here.
    #[error("Could not find repo: {0}")]
    RepoNotFound(String),
    /// The account's DID or handle cannot be resolved.
    #[error("the account's DID or handle could not be resolved")]
    Unresolved,
    /// The account's document names no usable PDS.
    #[error("the account's DID document names no PDS that can be called")]
    NoPds,
    /// Genkan does not call this PDS. All reasons share one text, because the reasons would
    /// describe Genkan's network.
    #[error("this server does not call the account's PDS")]
    NotAllowed,
    /// The operator allows this read to signed-in callers only.
    #[error("{}", messages::AUTHENTICATION_REQUIRED)]
    NoToken,
    /// A client, an account or a PDS is over its rate limit.
    #[error("{}", messages::TOO_MANY_REQUESTS)]
    OverLimit(OverLimit),
    /// `atproto-proxy` names no service that a PDS may be sent to.
    #[error("{0}")]
    BadService(&'static str),
    /// DNS has not said where the name of the service leads.
    #[error("the name of the service could not be looked up; try again in a moment")]
    ServiceUnknown,
    /// A query came with a body.
    #[error("A request body was provided when none was expected")]
    UnexpectedBody,
    /// The body exceeds the limit of its method.
    #[error("request entity too large")]
    TooLarge,
    /// The body stopped coming.
    #[error("the request body did not arrive in time")]
    SlowClient,
    /// The client left while it sent its body, or sent a broken one.
    #[error("{}", messages::TRUNCATED_BODY)]
    BrokenUpload,
    /// The request has passed this server before.
    #[error("the request has already passed through this server")]
    Loop,
    /// The host is unreachable, broke off, or did not speak HTTP.
    #[error("the account's host could not be reached")]
    Unreachable(#[source] Cause),
    /// The host failed repeatedly just now, so Genkan does not ask it.
    #[error("the account's host failed repeatedly; try again in a moment")]
    Resting,
    /// The host sent no answer within the limit.
    #[error("the account's host did not answer in time")]
    SlowHost(Duration),
    /// The host has as many requests under way as it may, from this client's kind or in all.
    #[error("too many concurrent requests to the account's host")]
    Crowded,
    /// The client holds its share of the server's places.
    #[error("this account or address has too many concurrent requests to the account's host")]
    ShareUsed,
    /// All clients together have as many calls to external PDSes under way as there may be.
    #[error("too many concurrent requests to external PDSes")]
    ExternalCrowded,
    /// Something that Genkan needs is unavailable, usually the database.
    #[error("the service is temporarily unavailable")]
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
    #[error("its answer exceeds the size limit")]
    TooLong,
    #[error("it answered with a redirect that is not followed")]
    Redirect,
}

/// Where to call a method that Genkan does not forward.
pub(crate) const NOT_CARRIED: &str = "This method is not forwarded: call it at the account's own PDS, or at a public \
    AppView such as https://public.api.bsky.app";
