//! What all forwarded calls share. Each edge thread has one set of it.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Response};
use http_body::Body as _;
use http1::{BodyLength, Connector, Deadlines, Exchange, KeepBudget, RequestHead, UploadProgress};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::answer::{AnswerBody, ForwardedBody};
use super::call::Call;
use super::error::Error;
use super::external::ExternalPdses;
use super::headers::AnswerFilter;
use super::limits::Limits;
use super::pools::{Breakers, Pools};

/// Forwards requests to hosts and external PDSes. Each edge thread has one.
#[derive(Debug)]
pub(crate) struct Forwarder<R> {
    pub(super) rooms: R,
    pub(super) external: ExternalPdses,
    pub(super) pools: Pools,
    pub(super) deadlines: Rc<Deadlines>,
    pub(super) limits: Limits,
    /// Memory for small bodies that may have to be sent twice.
    pub(super) budget: Rc<KeepBudget>,
    /// Genkan's name in `Via`.
    pub(super) via: HeaderValue,
}

/// An answer whose head has come.
pub(super) type Answer = http1::Answer<AnswerFilter, Incoming>;

impl<R> Forwarder<R> {
    pub(crate) fn new(
        rooms: R,
        via: HeaderValue,
        breakers: Breakers,
        connector: Connector,
        limits: Limits,
        external: ExternalPdses,
    ) -> Self {
        let deadlines = Deadlines::new();
        let at_once = external.policy.at_once;
        let pools = Pools::new(breakers, connector, limits.pool(), at_once, Rc::clone(&deadlines));
        Self { rooms, external, pools, deadlines, limits, budget: KeepBudget::new(), via }
    }

    /// Ends the waits whose deadline has passed. Called a few times a second.
    pub(crate) fn scan_deadlines(&self, now: Instant) {
        self.deadlines.scan(now);
    }

    /// Closes connections that are no longer used. The edge calls this from time to time.
    pub(crate) fn sweep(&self) {
        self.pools.sweep();
    }

    /// A request without a body.
    pub(super) fn exchange<'a, H: RequestHead>(&self, head: &'a H) -> Exchange<'a, H> {
        Exchange {
            head,
            length: BodyLength::None,
            progress: None,
            answer_within: self.limits.answer_head,
            limits: self.limits.upload(),
        }
    }
}

/// The answer for the client. A body that arrived with its head is sent as a whole.
pub(super) fn response(
    status: http::StatusCode,
    headers: http::HeaderMap,
    mut body: ForwardedBody,
) -> Response<AnswerBody> {
    let body = match body.take_buffered() {
        Some(whole) => AnswerBody::whole(whole),
        None => AnswerBody::Forwarded(body),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// A request's body, if it has one.
pub(super) struct Input {
    pub(super) upload: Option<Upload>,
    /// The part of the body that is kept for another try.
    pub(super) kept: Option<Rc<KeptBody>>,
    pub(super) length: BodyLength,
    pub(super) progress: Option<Rc<UploadProgress>>,
    /// How long the server may take once it has the whole body.
    pub(super) answer_within: Duration,
}

pub(super) type Upload = http1::Upload<Incoming>;
pub(super) type KeptBody = http1::KeptBody<Incoming>;

impl Input {
    /// Examines a request's body.
    pub(super) fn of(call: &Call<'_>, body: Incoming, limits: &Limits) -> Result<Self, Error> {
        if body.is_end_stream() {
            return Ok(Self {
                upload: None,
                kept: None,
                length: BodyLength::None,
                progress: None,
                answer_within: limits.answer_head,
            });
        }
        if call.request.method != Method::POST {
            // A body on a query has no meaning, and some servers read it as the next request.
            return Err(Error::UnexpectedBody);
        }
        let (most, answer_within) = limits.of_body(call.row.body_limit);
        let size = body.size_hint();
        // `lower` is the announced length, so an upload that is too large is refused before a byte
        // of it moves.
        if size.lower() > most {
            return Err(Error::TooLarge);
        }
        let length = size.exact().map_or(BodyLength::Chunked, BodyLength::Known);
        let (upload, progress) = Upload::new(body, most);
        Ok(Self { upload: Some(upload), kept: None, length, progress: Some(progress), answer_within })
    }

    /// Keeps the body for another try.
    pub(super) fn keep(&mut self, budget: &Rc<KeepBudget>) {
        self.kept = self.upload.as_mut().map(|upload| upload.keep(budget));
    }

    /// Reads the whole body, which is then sent from memory. Returns nothing for a request without a
    /// body. Comes before [`keep`](Self::keep).
    pub(super) async fn read_ahead(&mut self, limits: &Limits) -> Result<Option<Bytes>, Error> {
        let Some(upload) = &mut self.upload else { return Ok(None) };
        // One limit for the whole of it, since it is small.
        let body = tokio::time::timeout(limits.idle, upload.read_ahead()).await;
        Ok(Some(body.map_err(|_| Error::SlowClient)??))
    }

    pub(super) const fn has_body(&self) -> bool {
        self.upload.is_some()
    }
}

/// Returns the body for another try, if the request has one.
pub(super) fn again(
    kept: Option<&Rc<KeptBody>>,
    has_body: bool,
) -> Result<(Option<Upload>, Option<Rc<UploadProgress>>), Error> {
    if !has_body {
        return Ok((None, None));
    }
    // Without a kept body there is no second try: a repeated request with half a body would be
    // worse than a refusal.
    let (upload, progress) = kept.and_then(KeptBody::again).ok_or(Error::NotReady)?;
    Ok((Some(upload), Some(progress)))
}
