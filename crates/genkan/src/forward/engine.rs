//! The way of one request: find the home, send, take the answer.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::time::Instant;

use super::answer::{AnswerBody, Forwarded};
use super::breaker::Breakers;
use super::dial::Dialler;
use super::error::{Cause, Error};
use super::headers::{self, Onward};
use super::limits::Limits;
use super::link::{Failed, Link};
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
        mut parts: Parts,
        body: Incoming,
        visitor: &Visitor,
    ) -> Result<Response<AnswerBody>, Error> {
        if headers::has_passed(&parts.headers, &self.via) {
            return Err(Error::Loop);
        }
        let permit = self.upstreams.of(&aim.host).admit()?;
        let method = parts.uri.path().strip_prefix("/xrpc/").unwrap_or_default();
        let is_blob = method.eq_ignore_ascii_case("com.atproto.sync.getBlob");
        let (upload, progress, patience) = if body.is_end_stream() {
            (Upload::none(), None, self.limits.answer_head)
        } else if parts.method == Method::POST {
            let (most, patience) = self.limits.of_method(method);
            if body.size_hint().lower() > most {
                return Err(Error::TooLarge);
            }
            let (upload, progress) = Upload::of(body, most);
            (upload, Some(progress), patience)
        } else {
            return Err(Error::UnexpectedBody);
        };
        headers::onward(
            &mut parts.headers,
            &Onward {
                by_caller: aim.by_caller,
                host: &permit.upstream().authority,
                client: &visitor.address,
                via: &self.via,
            },
        );
        if parts.uri.authority().is_some() {
            let path = parts.uri.path_and_query().cloned().expect("it has a method's path");
            parts.uri = path.into();
        }
        parts.version = Version::HTTP_11;
        parts.extensions.clear();
        let request = Request::from_parts(parts, upload);
        let sending = Sending { vigil: &self.vigil, limits: &self.limits, permit, progress, patience };
        let (response, link, permit) = sending.exchange(request).await?;
        self.take(response, link, permit, aim.by_caller, is_blob).await
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
        response: Response<Incoming>,
        link: Box<Link>,
        permit: Permit,
        by_caller: bool,
        is_blob: bool,
    ) -> Result<Response<AnswerBody>, Error> {
        let (mut parts, body) = response.into_parts();
        match parts.status {
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
                permit.upstream().breaker.failed(Instant::now());
            }
            _ => permit.upstream().breaker.succeeded(),
        }
        if parts.status.is_informational() || is_framed_twice(&parts.headers) {
            return Err(Error::Unreachable(Cause::Framing));
        }
        if parts.status.is_redirection() && parts.status != StatusCode::NOT_MODIFIED {
            return Err(Error::Unreachable(Cause::Redirect));
        }
        let keep = Upstream::announced(&parts.headers);
        let most = if by_caller { u64::MAX } else { self.limits.answer };
        let mut body = Forwarded::new(body, link, permit, keep, self.limits.idle, most);
        if by_caller && parts.status == StatusCode::FORBIDDEN && is_small_json(&parts.headers) {
            let said = body.peek(MAX_PEEK).await.map_err(|_| Error::Unreachable(Cause::Framing))?;
            if said.is_some_and(|said| names_error(&said, "AccountNotFound")) {
                return Err(Error::Moved);
            }
        }
        headers::back(&mut parts.headers, by_caller, is_blob);
        parts.version = Version::HTTP_11;
        parts.extensions.clear();
        Ok(Response::from_parts(parts, AnswerBody::Forwarded(body)))
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
    permit: Permit,
    progress: Option<Rc<Progress>>,
    /// How long the host may take once it has the whole request.
    patience: Duration,
}

impl Sending<'_> {
    /// Sends over a spare connection, or a new one where there is none or it fails us before any answer.
    async fn exchange(
        self,
        request: Request<Upload>,
    ) -> Result<(Response<Incoming>, Box<Link>, Permit), Error> {
        let upstream = Rc::clone(self.permit.upstream());
        let mut request = request;
        while let Some(mut link) = upstream.spare() {
            let again = repeatable(&request);
            match self.head(&mut link, request).await? {
                Ok(response) => return Ok((response, link, self.permit)),
                Err(Failed::Unsent(unsent)) => request = *unsent,
                Err(Failed::Broken { answered: false, cause }) => {
                    let Some(again) = again else { return Err(self.broken(cause)) };
                    // The host has closed this connection, so the others are not to be trusted either.
                    upstream.forget_spares();
                    request = again;
                    break;
                }
                Err(Failed::Broken { answered: true, cause }) => return Err(self.broken(cause)),
            }
        }
        let mut link = upstream.open().await.map_err(|cause| {
            upstream.breaker.failed(Instant::now());
            Error::Unreachable(cause)
        })?;
        match self.head(&mut link, request).await? {
            Ok(response) => Ok((response, link, self.permit)),
            Err(Failed::Broken { cause, .. }) => Err(self.broken(cause)),
            Err(Failed::Unsent(_)) => {
                upstream.breaker.failed(Instant::now());
                Err(Error::Unreachable(Cause::Framing))
            }
        }
    }

    /// Waits for the head within the limits. The outer error is of time, and the connection is lost with it.
    async fn head(
        &self,
        link: &mut Link,
        request: Request<Upload>,
    ) -> Result<Result<Response<Incoming>, Failed>, Error> {
        let exchange = link.exchange(request);
        let Some(progress) = &self.progress else {
            return self.vigil.limit(self.patience, exchange).await.map_err(|_| self.slow_host());
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
                    self.slow_host()
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

    fn slow_host(&self) -> Error {
        self.permit.upstream().breaker.failed(Instant::now());
        Error::SlowHost(self.patience)
    }

    /// Whose fault a broken exchange is.
    fn broken(&self, cause: hyper::Error) -> Error {
        match self.progress.as_ref().map(|progress| progress.state.get()) {
            Some(State::TooLarge) => Error::TooLarge,
            Some(State::Broken) => Error::BrokenUpload,
            _ => {
                self.permit.upstream().breaker.failed(Instant::now());
                Error::Unreachable(Cause::Http(cause))
            }
        }
    }
}

/// A copy to send once more, of what may be sent twice: a read without a body.
fn repeatable(request: &Request<Upload>) -> Option<Request<Upload>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return None;
    }
    let mut copy = Request::new(Upload::none());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}

/// Whether an answer says its length more than once, which two readers may read differently.
fn is_framed_twice(headers: &http::HeaderMap) -> bool {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let first = lengths.next();
    lengths.next().is_some() || (first.is_some() && headers.contains_key(header::TRANSFER_ENCODING))
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
