//! One exchange with a host: a request sent, the head of its answer taken, within the limits.

use std::rc::Rc;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderValue, Method};
use tokio::time::Instant;

use super::answer_head::{AnswerHead, Asked};
use super::error::{Cause, Error};
use super::limits::Limits;
use super::link::{Broken, Link};
use super::request_head::{self, Length, Onward, Signed};
use super::upload::{Progress, State, Upload};
use super::upstream::{Permit, Upstream};
use super::vigil::Vigil;

/// A request on its way.
pub(super) struct Sending<'a> {
    pub(super) vigil: &'a Vigil,
    pub(super) limits: &'a Limits,
    pub(super) request: &'a Parts,
    /// Path and query.
    pub(super) target: &'a str,
    pub(super) ours: Ours<'a>,
    pub(super) length: Length,
    pub(super) progress: Option<Rc<Progress>>,
    /// We may go where the answer sends us.
    pub(super) follows: bool,
    /// How long the host may take once it has the whole request.
    pub(super) patience: Duration,
}

/// What a request gets from us, whichever try it is.
pub(super) struct Ours<'a> {
    pub(super) by_caller: bool,
    /// Signs anew for each try: no host takes a proof twice.
    pub(super) sign: &'a dyn Fn() -> Result<Option<Signed>, Error>,
    pub(super) host: &'a HeaderValue,
    /// The client's address, for our own hosts.
    pub(super) client: Option<&'a HeaderValue>,
    pub(super) via: &'a HeaderValue,
}

impl Sending<'_> {
    /// Sends over a spare connection, or a new one where there is none or it fails us before any answer.
    pub(super) async fn exchange(
        &self,
        permit: &Permit,
        mut upload: Option<Upload>,
    ) -> Result<(AnswerHead, Box<Link>), Error> {
        let upstream = permit.upstream();
        if let Some(mut link) = upstream.spare() {
            match self.over(&mut link, upload.take(), upstream).await? {
                Ok(head) => return Ok((head, link)),
                // The host has closed this connection, so the others are not to be trusted either.
                Err(Broken { answered: false, .. }) if self.is_repeatable() => upstream.forget_spares(),
                Err(broken) => return Err(self.broken(broken.cause, upstream)),
            }
        }
        let mut link = upstream.open().await.map_err(|cause| {
            upstream.breaker.failed(Instant::now());
            Error::Unreachable(cause)
        })?;
        match self.over(&mut link, upload, upstream).await? {
            Ok(head) => Ok((head, link)),
            Err(broken) => Err(self.broken(broken.cause, upstream)),
        }
    }

    /// What may be sent twice: a read without a body.
    fn is_repeatable(&self) -> bool {
        self.progress.is_none() && (self.request.method == Method::GET || self.request.method == Method::HEAD)
    }

    /// Sends over this connection, and waits for the head within the limits. The outer error is of time, and the
    /// connection is lost with it.
    async fn over(
        &self,
        link: &mut Link,
        upload: Option<Upload>,
        upstream: &Upstream,
    ) -> Result<Result<AnswerHead, Broken>, Error> {
        let Ours { by_caller, sign, host, client, via } = self.ours;
        let signed = sign()?;
        let ours = Onward { by_caller, signed: signed.as_ref(), host, client, via };
        request_head::write_head(
            link.begin(upload, self.length),
            self.request,
            self.target,
            self.length,
            &ours,
        );
        let asked = Asked::new(&self.request.method, by_caller, signed.is_some());
        let exchange = link.head(Asked { follows: self.follows, ..asked });
        let Some(progress) = &self.progress else {
            return self.vigil.limit(self.patience, exchange).await.map_err(|_| self.slow_host(upstream));
        };
        let mut exchange = std::pin::pin!(exchange);
        let mut until = Instant::now();
        loop {
            if let Ok(outcome) = tokio::time::timeout_at(until, exchange.as_mut()).await {
                return Ok(outcome);
            }
            let state = progress.state.get();
            let now = Instant::now();
            let limit = if state == State::Done { self.patience } else { self.limits.idle };
            until = progress.moved.get() + limit;
            if until <= now {
                return Err(if state == State::WaitsForClient {
                    Error::SlowClient
                } else {
                    self.slow_host(upstream)
                });
            }
            if state != State::Done {
                if progress.trickles(now, self.limits.slow_grace, self.limits.slow_rate) {
                    return Err(Error::SlowClient);
                }
                until = until.min(now + self.limits.slow_grace / 2);
            }
        }
    }

    fn slow_host(&self, upstream: &Upstream) -> Error {
        upstream.breaker.failed(Instant::now());
        Error::SlowHost(self.patience)
    }

    /// Whose fault a broken exchange is.
    fn broken(&self, cause: Cause, upstream: &Upstream) -> Error {
        match self.progress.as_ref().map(|progress| progress.state.get()) {
            Some(State::TooLarge) => Error::TooLarge,
            Some(State::Broken) => Error::BrokenUpload,
            _ => {
                upstream.breaker.failed(Instant::now());
                Error::Unreachable(cause)
            }
        }
    }
}
