//! What can go wrong in an exchange, and whose fault it is.

use std::io;
use std::time::Duration;

use crate::breaker::Answerer;

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server cannot be reached, broke off, or did not speak HTTP. Counts against its breaker,
    /// if it can only be the server's own failure.
    #[error("the server failed: {0}")]
    Unreachable(#[source] Cause),
    /// The server let this limit pass: it sent no answer after the request, or took no more of its
    /// body. Counts against its breaker, if the server answers alone.
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
    Name(io::Error),
    /// No connection could be opened.
    #[error("connecting: {0}")]
    Connect(io::Error),
    /// The TLS handshake failed.
    #[error("TLS: {0}")]
    Tls(io::Error),
    /// The connection was not usable within its limit.
    #[error("connecting took too long")]
    SlowConnect,
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(io::Error),
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

/// A failed exchange, for the question whether it counts against the server.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Failure<'a> {
    /// No connection could be opened.
    NoConnection(&'a Cause),
    /// The connection failed before the head of an answer had come.
    Broken {
        cause: &'a Cause,
        /// Whether the server had the whole request.
        was_sent: bool,
    },
    /// The server let a limit pass.
    Silence,
}

impl Failure<'_> {
    /// Whether the failure is the server's own: a client, or a server behind it, cannot cause it.
    pub(crate) fn is_servers(self, answerer: Answerer) -> bool {
        match self {
            // The process lacks a resource, such as a file descriptor or a local port.
            Self::NoConnection(Cause::Connect(error)) => !is_own_shortage(error),
            // A name that cannot be looked up says nothing about the server behind it.
            Self::NoConnection(Cause::Name(_)) => false,
            Self::NoConnection(_) | Self::Broken { cause: Cause::Framing, .. } => true,
            // A server may close the connection in the middle of a request that the client sends
            // too slowly. And one that passes answers on can often report the broken connection of
            // a server behind it only by breaking its own.
            Self::Broken { was_sent, .. } => was_sent && answerer == Answerer::Server,
            Self::Silence => answerer == Answerer::Server,
        }
    }
}

/// Whether an error of `connect` is about this machine, and says nothing about the server.
fn is_own_shortage(error: &io::Error) -> bool {
    // Linux: ENFILE 23, EMFILE 24, ENOMEM 12, EADDRNOTAVAIL 99, ENOBUFS 105.
    matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::OutOfMemory)
        || matches!(error.raw_os_error(), Some(23 | 24 | 105))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_the_servers_own_failure_counts_against_it() {
        let os = |code| Cause::Connect(io::Error::from_raw_os_error(code));
        let broken = |cause, was_sent| Failure::Broken { cause, was_sent };
        for (failure, alone, behind) in [
            (Failure::NoConnection(&os(111)), true, true),
            (Failure::NoConnection(&Cause::SlowConnect), true, true),
            (Failure::NoConnection(&Cause::Name(io::ErrorKind::TimedOut.into())), false, false),
            (Failure::NoConnection(&os(24)), false, false),
            (Failure::NoConnection(&os(99)), false, false),
            (broken(&Cause::Framing, false), true, true),
            (broken(&Cause::Closed, true), true, false),
            (broken(&Cause::Broken(io::ErrorKind::ConnectionReset.into()), true), true, false),
            (broken(&Cause::Closed, false), false, false),
            (Failure::Silence, true, false),
        ] {
            let counts = [Answerer::Server, Answerer::Behind].map(|answerer| failure.is_servers(answerer));
            assert_eq!(counts, [alone, behind], "{failure:?}");
        }
    }
}
