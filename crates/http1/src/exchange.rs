//! One exchange: a request sent and the head of its answer taken, within the limits.

use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use http_body::Body;

use crate::answer_body::AnswerBody;
use crate::answer_head::AnswerHead;
use crate::clock::monotonic_now;
use crate::connection::{HeadError, UpstreamConnection};
use crate::error::{Error, Failure};
use crate::pool::{Permit, Pool};
use crate::request_head::{BodyLength, RequestHead, write_request_head};
use crate::upload::{Upload, UploadProgress, UploadState};

/// A request to send.
#[derive(Debug)]
pub struct Exchange<'a, H> {
    /// The head, and which fields of the answer's head to keep.
    pub head: &'a H,
    /// How long the body is.
    pub length: BodyLength,
    /// The progress of the body. `None` for a request without a body.
    pub progress: Option<Rc<UploadProgress>>,
    /// The longest wait from the end of the request until the head of its answer.
    pub answer_within: Duration,
    /// How slowly the body may come.
    pub limits: UploadLimits,
}

/// How slowly a request's body may come.
#[derive(Clone, Copy, Debug)]
pub struct UploadLimits {
    /// The longest wait from one byte to the next, both from the source and to the server.
    pub idle: Duration,
    /// How long the source may send more slowly than `slow_rate`.
    pub slow_grace: Duration,
    /// Bytes per second that the source has to send on average.
    pub slow_rate: u64,
}

/// An answer whose head has come. Its body is still on the connection.
#[derive(Debug)]
pub struct Answer<F, B> {
    /// The status and the kept headers.
    pub head: AnswerHead,
    /// The caller's choice of fields, with what it read from them.
    pub fields: F,
    connection: Box<UpstreamConnection<B>>,
}

impl<F, B: Body<Data = Bytes> + Unpin> Answer<F, B> {
    /// Splits the answer into status, headers and body. The body holds the permit.
    ///
    /// `idle` is the longest wait from one byte to the next. A body of more than `most` bytes is
    /// cut off.
    pub fn into_parts(
        self,
        permit: Permit<B>,
        idle: Duration,
        most: u64,
    ) -> (StatusCode, HeaderMap, AnswerBody<B>) {
        let AnswerHead { status, headers, framing, keep } = self.head;
        (status, headers, AnswerBody::new(framing, self.connection, permit, keep, idle, most))
    }

    /// Drops the answer before another try. The next request may use the connection if this
    /// exchange is over on both sides. Otherwise the connection is closed, and the rest of the
    /// request's body goes back to its [`KeptBody`](crate::KeptBody).
    pub fn discard(mut self, pool: &Pool<B>, progress: Option<&UploadProgress>) {
        let was_sent = progress.is_none_or(|progress| progress.state() == UploadState::Done);
        if was_sent && self.connection.take_buffered(&mut self.head.framing).is_some() {
            pool.give_back(self.connection, self.head.keep);
        }
    }
}

impl<H: RequestHead> Exchange<'_, H> {
    /// Sends the request over an idle connection, or over a new one if there is none. A read
    /// without a body is sent once more, over a new connection, if the idle one failed before a
    /// byte of an answer came.
    ///
    /// # Errors
    ///
    /// An [`Error`] converted to the caller's type, or the caller's own error from
    /// [`RequestHead::write_fields`]. The pool's breaker counts answers and failures of the server.
    pub async fn send<B: Body<Data = Bytes> + Unpin>(
        &self,
        permit: &Permit<B>,
        mut upload: Option<Upload<B>>,
    ) -> Result<Answer<H::Fields, B>, H::Error> {
        let pool = permit.pool();
        if let Some(connection) = pool.take_idle() {
            match self.over(connection, upload.take(), permit).await? {
                Ok(answer) => return Ok(answer),
                // The server closed this connection while it was idle, as it may at any time. It
                // has probably closed the others too, so the retry uses a new one.
                Err(HeadError { answered: false, .. }) if self.is_repeatable() => pool.close_idle(),
                Err(error) => return Err(self.blame(error, permit, true).into()),
            }
        }
        // Reached without an idle connection, or after a failed try. The body is still complete: a
        // request with a body is never tried twice here.
        //
        // Boxed, as is all that few requests need: the future of a request is copied when it begins.
        let connection = Box::pin(pool.connect()).await.map_err(|cause| {
            permit.failed(Failure::NoConnection(&cause));
            Error::Unreachable(cause)
        })?;
        self.over(connection, upload, permit).await?.map_err(|error| self.blame(error, permit, false).into())
    }

    /// Whether the request may be sent twice: it is a read without a body (RFC 9110 §9.2.2).
    fn is_repeatable(&self) -> bool {
        let method = self.head.method();
        self.progress.is_none() && (method == Method::GET || method == Method::HEAD)
    }

    /// Sends over this connection and waits for the head within the limits.
    ///
    /// The inner error concerns the connection. The outer one is final: a time limit, or the
    /// caller's own error.
    async fn over<B: Body<Data = Bytes> + Unpin>(
        &self,
        mut connection: Box<UpstreamConnection<B>>,
        upload: Option<Upload<B>>,
        permit: &Permit<B>,
    ) -> Result<Result<Answer<H::Fields, B>, HeadError>, H::Error> {
        let pool = permit.pool();
        let out = connection.begin(upload, self.length);
        // Written into the connection's own buffer. If a field cannot be written, the connection is
        // dropped with it and no byte was sent.
        write_request_head(out, self.head, pool.endpoint().authority(), self.length)?;
        let mut fields = self.head.answer_fields();
        let to_head = self.head.method() == Method::HEAD;
        let head = connection.head(to_head, &mut fields);
        let outcome = match &self.progress {
            None => pool
                .deadlines()
                .limit(self.answer_within, head)
                .await
                .map_err(|_| slow_server(permit, self.answer_within))?,
            Some(progress) => Box::pin(self.while_uploading(progress, head, permit)).await?,
        };
        if outcome.is_ok() {
            permit.answered();
        }
        Ok(outcome.map(|head| Answer { head, fields, connection }))
    }

    /// Waits for the head while the body is being sent. The state of the upload decides which limit
    /// applies.
    async fn while_uploading<T, B: Body<Data = Bytes> + Unpin>(
        &self,
        progress: &UploadProgress,
        head: impl Future<Output = T>,
        permit: &Permit<B>,
    ) -> Result<T, Error> {
        let mut head = pin!(head);
        // The first timeout ends at once unless the head is ready. The loop then sets the real
        // limit.
        let mut until = monotonic_now();
        loop {
            if let Ok(outcome) = tokio::time::timeout_at(until, head.as_mut()).await {
                return Ok(outcome);
            }
            // The timer only says when to check again. Bytes may have moved since it was set, so
            // the limit counts from the last of them.
            let state = progress.state();
            let now = monotonic_now();
            // The source decides how long this takes, and could prolong the pause of an open breaker.
            if state == UploadState::WaitsForSource {
                permit.end_trial();
            }
            // Until the upload is done, either side may be the slow one. Afterwards only the server
            // can be.
            let limit = if state == UploadState::Done { self.answer_within } else { self.limits.idle };
            until = progress.moved.get() + limit;
            if until <= now {
                return Err(if state == UploadState::WaitsForSource {
                    Error::SlowBody
                } else {
                    // The limit that has passed: of the answer, or of the next byte that the server takes.
                    slow_server(permit, limit)
                });
            }
            if state != UploadState::Done {
                if progress.is_too_slow(now, self.limits.slow_grace, self.limits.slow_rate) {
                    return Err(Error::SlowBody);
                }
                // A source that sends a byte now and then never reaches the idle limit. So its rate
                // is checked twice per grace period.
                until = until.min(now + self.limits.slow_grace / 2);
            }
        }
    }

    /// Decides whose fault a failed exchange is.
    fn blame<B>(&self, error: HeadError, permit: &Permit<B>, was_idle: bool) -> Error {
        let HeadError { answered, cause } = error;
        let state = self.progress.as_ref().map(|progress| progress.state());
        match state {
            // Both are the client's fault and must not count against the server.
            Some(UploadState::TooLarge) => Error::BodyTooLarge,
            Some(UploadState::Broken) => Error::BrokenBody,
            _ => {
                // A server may close an idle connection at any time, so this failure says nothing
                // about the next connection.
                if answered || !was_idle {
                    let was_sent = state.is_none_or(|state| state == UploadState::Done);
                    permit.failed(Failure::Broken { cause: &cause, was_sent });
                }
                Error::Unreachable(cause)
            }
        }
    }
}

/// The server let this limit pass.
fn slow_server<B>(permit: &Permit<B>, limit: Duration) -> Error {
    permit.failed(Failure::Silence);
    Error::SlowServer(limit)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http_body_util::Full;
    use tokio_rustls::rustls::crypto::ring;
    use tokio_rustls::rustls::{ClientConfig, RootCertStore};

    use super::*;
    use crate::{
        Answerer, Breaker, BreakerRules, Connector, Deadlines, Endpoint, FieldWriter, KeepAll, PoolLimits,
    };

    struct Post;

    impl RequestHead for Post {
        type Fields = KeepAll;
        type Error = Error;

        fn method(&self) -> &Method {
            &Method::POST
        }

        fn target(&self) -> &'static str {
            "/"
        }

        fn write_fields(&self, _: &mut FieldWriter<'_>) -> Result<(), Error> {
            Ok(())
        }

        fn answer_fields(&self) -> KeepAll {
            KeepAll
        }
    }

    fn permit() -> Permit<Full<Bytes>> {
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let second = Duration::from_secs(1);
        let rules = BreakerRules { failures: 5, window: second, pause: second };
        let pool = Pool::new(
            Endpoint::new(false, &"localhost".parse().unwrap()),
            None,
            Connector::new(Arc::new(tls)),
            Arc::new(Breaker::new(rules)),
            PoolLimits { connect: second, at_once: 1, idle: 1, keep: second },
            Deadlines::new(),
        );
        Rc::new(pool).admit(Answerer::Server).unwrap()
    }

    #[tokio::test]
    async fn a_slow_server_is_told_by_the_limit_that_it_let_pass() {
        let (idle, answer_within) = (Duration::from_millis(20), Duration::from_millis(60));
        for (state, limit) in [(UploadState::WaitsForServer, idle), (UploadState::Done, answer_within)] {
            let (_upload, progress) = Upload::new(Full::new(Bytes::from_static(b"body")), 10);
            progress.state.set(state);
            let exchange = Exchange {
                head: &Post,
                length: BodyLength::Known(4),
                progress: Some(Rc::clone(&progress)),
                answer_within,
                limits: UploadLimits { idle, slow_grace: Duration::from_secs(9), slow_rate: 1 },
            };
            let head = std::future::pending::<()>();
            let outcome = exchange.while_uploading(&progress, head, &permit()).await;
            assert!(matches!(outcome, Err(Error::SlowServer(passed)) if passed == limit), "{outcome:?}");
        }
    }

    /// A client could otherwise keep a breaker open by bodies that it does not send.
    #[tokio::test]
    async fn a_trial_that_waits_for_its_source_gives_its_turn_to_the_next_request() {
        let permit = permit();
        let (breaker, pause) = (permit.pool().breaker(), Duration::from_secs(1));
        let now = monotonic_now();
        for _ in 0..5 {
            breaker.failed(None, now);
        }
        permit.trial.set(breaker.admit(Answerer::Server, now + pause).unwrap());
        assert!(breaker.admit(Answerer::Server, now + pause).is_err(), "one request has the turn");
        let (_upload, progress) = Upload::new(Full::new(Bytes::from_static(b"body")), 10);
        progress.state.set(UploadState::WaitsForSource);
        let exchange = Exchange {
            head: &Post,
            length: BodyLength::Known(4),
            progress: Some(Rc::clone(&progress)),
            answer_within: pause,
            limits: UploadLimits { idle: Duration::ZERO, slow_grace: Duration::from_secs(9), slow_rate: 1 },
        };
        let outcome = exchange.while_uploading(&progress, std::future::pending::<()>(), &permit).await;
        assert!(matches!(outcome, Err(Error::SlowBody)), "{outcome:?}");
        assert!(breaker.admit(Answerer::Server, now + pause).unwrap().is_some());
    }
}
