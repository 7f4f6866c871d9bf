//! The way of one request: find the home, send, take the answer.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode, header};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::time::Instant;

use super::answer::{AnswerBody, Forwarded};
use super::answer_head::{AnswerHead, Asked};
use super::breaker::Breakers;
use super::dial::Dialler;
use super::error::{Cause, Error};
use super::headers::{self, Length, Onward};
use super::limits::Limits;
use super::link::{Broken, Link};
use super::neighbours::{Neighbours, TokenError};
use super::upload::{Progress, State, Upload};
use super::upstream::{Permit, Upstream, Upstreams};
use super::vigil::Vigil;
use crate::accounts::{Caller, Home};
use crate::fleet::{Host, HostId};
use crate::routing::Way;
use crate::routing::target::Target;

/// Who is at the door.
#[derive(Debug)]
pub(crate) struct Visitor {
    /// The client's address, as a host is told it.
    pub(crate) address: HeaderValue,
}

/// Where a request goes, and by whose credentials.
#[derive(Debug)]
pub(crate) struct Aim {
    host: Arc<Host>,
    by_caller: bool,
}

impl Aim {
    pub(crate) fn host(&self) -> &HostId {
        &self.host.id
    }
}

/// Carries requests to hosts. One for each edge thread.
#[derive(Debug)]
pub(crate) struct Forwarder<N> {
    neighbours: N,
    upstreams: Upstreams,
    vigil: Rc<Vigil>,
    limits: Rc<Limits>,
    /// Our name in `Via`.
    via: HeaderValue,
}

impl<N: Neighbours> Forwarder<N> {
    pub(crate) fn new(
        neighbours: N,
        via: HeaderValue,
        breakers: Breakers,
        dialler: Dialler,
        limits: Limits,
    ) -> Self {
        let (limits, vigil) = (Rc::new(limits), Vigil::new());
        let upstreams = Upstreams::new(breakers, dialler, Rc::clone(&limits), Rc::clone(&vigil));
        Self { neighbours, upstreams, vigil, limits, via }
    }

    /// Finds the host that a way leads to.
    pub(crate) async fn aim(&self, way: Way<'_>) -> Result<Aim, Error> {
        match way {
            // Nobody asks for it: what Genkan answers itself goes to no host.
            Way::Local => Err(Error::Unavailable),
            Way::Caller { token } => {
                let caller = self.caller(token).await?;
                let account = Target::Did(std::borrow::Cow::Borrowed(caller.did.as_str()));
                // A token outlives an account's stay.
                let home = self.home(&account).await?.ok_or(Error::Moved)?;
                if home.host != caller.audience {
                    return Err(Error::Moved);
                }
                self.aim_at(&home, true)
            }
            Way::Target { account } => {
                let home = self.target(&account).await?;
                self.aim_at(&home, false)
            }
            Way::SelfRead { account, token } => {
                let home = self.target(&account).await?;
                // Any other token is as good as none here: a public read must not fail for a stale one.
                let own = self
                    .caller(token)
                    .await
                    .is_ok_and(|caller| caller.did == home.did && caller.audience == home.host);
                self.aim_at(&home, own)
            }
        }
    }

    /// Sends a request where it is aimed, and takes the answer's head.
    pub(crate) async fn send(
        &self,
        aim: &Aim,
        request: &Parts,
        body: Incoming,
        visitor: &Visitor,
    ) -> Result<Response<AnswerBody>, Error> {
        if headers::has_passed(&request.headers, &self.via) {
            return Err(Error::Loop);
        }
        let permit = self.upstreams.of(&aim.host).admit()?;
        let method = request.uri.path().strip_prefix("/xrpc/").unwrap_or_default();
        let is_blob = method.eq_ignore_ascii_case("com.atproto.sync.getBlob");
        let mut sending = Sending {
            vigil: &self.vigil,
            limits: &self.limits,
            request,
            ours: Onward {
                by_caller: aim.by_caller,
                host: &permit.upstream().authority,
                client: &visitor.address,
                via: &self.via,
            },
            length: Length::None,
            progress: None,
            patience: self.limits.answer_head,
        };
        let mut upload = None;
        if !body.is_end_stream() {
            if request.method != Method::POST {
                return Err(Error::UnexpectedBody);
            }
            let (most, patience) = self.limits.of_method(method);
            let size = body.size_hint();
            if size.lower() > most {
                return Err(Error::TooLarge);
            }
            sending.length = size.exact().map_or(Length::Chunked { is_first: true }, Length::Known);
            sending.patience = patience;
            let (body, progress) = Upload::of(body, most);
            (upload, sending.progress) = (Some(body), Some(progress));
        }
        let (head, link) = sending.exchange(&permit, upload).await?;
        self.take(head, link, permit, aim.by_caller, is_blob).await
    }

    /// Looks at who has waited too long. Called a few times a second.
    pub(crate) fn look(&self, now: Instant) {
        self.vigil.look(now);
    }

    /// Closes connections that nobody uses any more. Called now and then.
    pub(crate) fn sweep(&self) {
        self.upstreams.sweep();
    }

    /// Makes of a host's answer what a client gets.
    async fn take(
        &self,
        head: AnswerHead,
        link: Box<Link>,
        permit: Permit,
        by_caller: bool,
        is_blob: bool,
    ) -> Result<Response<AnswerBody>, Error> {
        let AnswerHead { status, mut headers, framing, keep } = head;
        match status {
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
                permit.upstream().breaker.failed(Instant::now());
            }
            _ => permit.upstream().breaker.succeeded(),
        }
        if status.is_redirection() && status != StatusCode::NOT_MODIFIED {
            return Err(Error::Unreachable(Cause::Redirect));
        }
        let most = if by_caller { u64::MAX } else { self.limits.answer };
        let mut body = Forwarded::new(framing, link, permit, keep, self.limits.idle, most);
        if by_caller && status == StatusCode::FORBIDDEN && is_small_json(&headers) {
            let said = body.peek(MAX_PEEK).await.map_err(|_| Error::Unreachable(Cause::Framing))?;
            if said.is_some_and(|said| names_error(&said, "AccountNotFound")) {
                return Err(Error::Moved);
            }
        }
        headers::guard(&mut headers, by_caller, is_blob);
        let body = match body.at_hand() {
            Some(whole) => AnswerBody::whole(whole),
            None => AnswerBody::Forwarded(body),
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }

    async fn caller(&self, token: &str) -> Result<Arc<Caller>, Error> {
        let checked = match self.neighbours.recall_caller(token) {
            Some(known) => known,
            None => self.neighbours.check_caller(token).await,
        };
        checked.map_err(|problem| match problem {
            TokenError::Invalid => Error::InvalidToken,
            TokenError::Expired => Error::ExpiredToken,
            TokenError::Unavailable => Error::Unavailable,
        })
    }

    async fn target(&self, account: &Target<'_>) -> Result<Arc<Home>, Error> {
        self.home(account).await?.ok_or_else(|| {
            Error::RepoNotFound(match account {
                Target::Did(did) => did.clone().into_owned(),
                Target::Handle(handle) => handle.clone(),
            })
        })
    }

    async fn home(&self, account: &Target<'_>) -> Result<Option<Arc<Home>>, Error> {
        match self.neighbours.recall_home(account) {
            Some(known) => Ok(known),
            None => self.neighbours.find_home(account).await.map_err(|_| Error::Unavailable),
        }
    }

    fn aim_at(&self, home: &Home, by_caller: bool) -> Result<Aim, Error> {
        // Homes name hosts of the fleet; between a host's removal and the news of it there may be none.
        let host = self.neighbours.host(&home.host).ok_or(Error::Unavailable)?;
        Ok(Aim { host, by_caller })
    }
}

/// A request on its way.
struct Sending<'a> {
    vigil: &'a Vigil,
    limits: &'a Limits,
    request: &'a Parts,
    ours: Onward<'a>,
    length: Length,
    progress: Option<Rc<Progress>>,
    /// How long the host may take once it has the whole request.
    patience: Duration,
}

impl Sending<'_> {
    /// Sends over a spare connection, or a new one where there is none or it fails us before any answer.
    async fn exchange(
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
        headers::write_head(link.begin(upload, self.length), self.request, self.length, &self.ours);
        let exchange = link.head(Asked::new(&self.request.method, self.ours.by_caller));
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

/// Whether an error's body can be looked into.
fn is_small_json(headers: &http::HeaderMap) -> bool {
    let is_json = headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().to_ascii_lowercase().starts_with(b"application/json"));
    let length =
        headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    is_json
        && length.is_none_or(|length| length <= MAX_PEEK)
        && !headers.contains_key(header::CONTENT_ENCODING)
}

/// Whether an XRPC error's body has this name.
fn names_error(body: &[u8], name: &str) -> bool {
    #[derive(serde::Deserialize)]
    struct Named<'a> {
        #[serde(borrow)]
        error: std::borrow::Cow<'a, str>,
    }
    serde_json::from_slice::<Named<'_>>(body).is_ok_and(|named| named.error == name)
}

/// The longest error body that is looked into.
const MAX_PEEK: usize = 4096;
