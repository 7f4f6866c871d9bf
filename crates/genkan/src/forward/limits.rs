//! The limits of forwarded calls: sizes and times.

use std::time::Duration;

use http1::{PoolLimits, UploadLimits};

use crate::routing::BodyLimit;

/// The limits of a forwarded call.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// From the start of a connection until it is usable, TLS included.
    pub(crate) connect: Duration,
    /// From the last byte of the request to the head of the answer.
    pub(crate) answer_head: Duration,
    /// The time for the head of an answer to `uploadBlob` and `importRepo`, which hosts process for
    /// longer.
    pub(crate) answer_head_after_upload: Duration,
    /// From one byte of a body to the next, in either direction.
    pub(crate) idle: Duration,
    /// How long a client may send its body more slowly than `slow_rate`.
    pub(crate) slow_grace: Duration,
    /// Bytes per second that a client has to send on average.
    pub(crate) slow_rate: u64,
    /// The most bytes of an answer to a request without credentials.
    pub(crate) answer: u64,
    /// The most bytes of a procedure's input.
    pub(crate) input: u64,
    /// The most bytes of an `uploadBlob`.
    pub(crate) blob: u64,
    /// The most bytes of an `importRepo`.
    pub(crate) import: u64,
    /// Requests under way at one host, from one edge thread.
    pub(crate) at_once: usize,
    /// Idle connections to one host that one edge thread keeps.
    pub(crate) spare: usize,
    /// How long an idle connection is kept if its host names no time.
    pub(crate) keep: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            answer_head: Duration::from_secs(30),
            answer_head_after_upload: Duration::from_mins(2),
            idle: Duration::from_secs(30),
            slow_grace: Duration::from_secs(10),
            slow_rate: 1024,
            answer: 4 << 30,
            input: 2 << 20,
            blob: 100 << 20,
            import: 1 << 30,
            at_once: 1024,
            spare: 512,
            keep: Duration::from_secs(30),
        }
    }
}

impl Limits {
    pub(crate) fn of(config: &crate::config::Config) -> Self {
        let limits = &config.limits;
        Self {
            connect: limits.connect_timeout,
            answer_head: limits.answer_timeout,
            answer_head_after_upload: limits.upload_answer_timeout,
            idle: limits.idle_timeout,
            slow_grace: config.listen.slow_body_grace,
            slow_rate: config.listen.slow_body_rate.0,
            input: limits.forwarded_body.0,
            blob: limits.upload.0,
            import: limits.import.0,
            answer: limits.answer.0,
            at_once: config.fleet.connections_per_host,
            spare: config.fleet.connections_per_host,
            ..Self::default()
        }
    }

    /// The limits of one pool of connections to a host.
    pub(super) const fn pool(&self) -> PoolLimits {
        PoolLimits { connect: self.connect, at_once: self.at_once, idle: self.spare, keep: self.keep }
    }

    /// How slowly a request's body may come.
    pub(super) const fn upload(&self) -> UploadLimits {
        UploadLimits { idle: self.idle, slow_grace: self.slow_grace, slow_rate: self.slow_rate }
    }

    /// The most bytes that a body may have, and how long the answer to it may take.
    pub(super) const fn of_body(&self, limit: BodyLimit) -> (u64, Duration) {
        match limit {
            BodyLimit::Upload => (self.blob, self.answer_head_after_upload),
            BodyLimit::Import => (self.import, self.answer_head_after_upload),
            BodyLimit::Own | BodyLimit::Forwarded => (self.input, self.answer_head),
            BodyLimit::ReadAhead => (READ_AHEAD, self.answer_head),
        }
    }
}

/// The most bytes of an input that Genkan reads before it forwards it.
const READ_AHEAD: u64 = 64 << 10;
