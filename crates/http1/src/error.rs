//! What can go wrong in an exchange, and whose fault it is.

use std::time::Duration;

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server cannot be reached, broke off, or did not speak HTTP. Counts against its breaker.
    #[error("the server failed: {0}")]
    Unreachable(#[source] Cause),
    /// The server let this limit pass: it sent no answer after the request, or took no more of its
    /// body. Counts against its breaker.
    #[error("the server did not answer within {0:?}")]
    SlowServer(Duration),
    /// The server's breaker is open, because it failed repeatedly just now.
    #[error("the server failed repeatedly, and its circuit breaker is open")]
    BreakerOpen,
    /// As many requests are under way at the server as its pool allows.
    #[error("too many concurrent requests to the server")]
    PoolFull,
    /// The request's body is longer than its limit.
    #[error("the request's body is too large")]
    BodyTooLarge,
    /// The request's body came too slowly, or stopped coming.
    #[error("the request's body did not arrive in time")]
    SlowBody,
    /// The request's body broke off, or is not as long as was announced.
    #[error("the request's body broke off")]
    BrokenBody,
}

/// What a server did wrong.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// Its name could not be looked up.
    #[error("looking up its name: {0}")]
    Name(std::io::Error),
    /// No connection could be opened.
    #[error("connecting: {0}")]
    Connect(std::io::Error),
    /// The TLS handshake failed.
    #[error("TLS: {0}")]
    Tls(std::io::Error),
    /// The connection was not usable within its limit.
    #[error("connecting took too long")]
    SlowConnect,
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(std::io::Error),
    /// It closed the connection too early.
    #[error("it closed the connection before its answer was whole")]
    Closed,
    /// The exchange ended because the request's body did. The body's progress says why.
    #[error("the request could not be read to its end")]
    Upload,
    /// Its answer leaves doubt about where it ends.
    #[error("its answer is not framed as HTTP requires")]
    Framing,
}
