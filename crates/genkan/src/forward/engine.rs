//! The way of one request: find the home, send, take the answer.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use genkan_protocol::syntax::Did;
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
use super::upload::{Budget, Kept, Progress, State, Upload};
use super::upstream::{Permit, Upstream, Upstreams};
use super::vigil::Vigil;
use crate::accounts::{Caller, Home};
use crate::fleet::{Host, HostId};
use crate::oauth::{self, AccessError, Call, GrantCaller};
use crate::routing::target::Target;
use crate::routing::{Shown, Way};

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
    by: By,
}

/// Whose credentials a request carries to its host.
#[derive(Debug)]
enum By {
    Nobody,
    /// The caller's own session token, as it came.
    Session,
    /// A token and a proof of ours, within this caller's grant.
    Grant(Arc<GrantCaller>),
}

impl Aim {
    const fn by_caller(&self) -> bool {
        !matches!(self.by, By::Nobody)
    }

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
    budget: Rc<Budget>,
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
        Self { neighbours, upstreams, vigil, limits, budget: Budget::new(), via }
    }

    /// Finds the host that a way leads to. Uses up the proof of a request that has one.
    pub(crate) async fn aim(&self, way: Way<'_>, request: &Parts) -> Result<Aim, Error> {
        match way {
            // Nobody asks for it: what Genkan answers itself goes to no host.
            Way::Local => Err(Error::Unavailable),
            Way::Caller { shown } => {
                let (did, audience, by) = self.speaker(shown, request).await?;
                let account = Target::Did(std::borrow::Cow::Borrowed(did.as_str()));
                // A token outlives an account's stay.
                match self.home(&account).await? {
                    Some(home) if home.host == audience => self.aim_at(&home, by),
                    _ => Err(by.moved()),
                }
            }
            Way::Target { account } => {
                let home = self.target(&account).await?;
                self.aim_at(&home, By::Nobody)
            }
            Way::SelfRead { account, shown } => {
                let home = self.target(&account).await?;
                match self.speaker(shown, request).await {
                    Ok((did, audience, by)) if did == home.did && audience == home.host => {
                        self.aim_at(&home, by)
                    }
                    // The account's own client has not heard of our nonce yet, and will come again with it.
                    Err(error @ Error::Grant { code: "use_dpop_nonce", .. })
                        if claims(shown, home.did.as_str()) =>
                    {
                        Err(error)
                    }
                    // Any other token is as good as none here: a public read must not fail for a stale one.
                    _ => self.aim_at(&home, By::Nobody),
                }
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
        let sign = || match &aim.by {
            By::Nobody | By::Session => Ok(None),
            By::Grant(caller) => {
                let path = request.uri.path();
                let signed = self.neighbours.sign_onward(caller, &aim.host, request.method.as_str(), path);
                signed.map(Some).ok_or(Error::UpstreamAuth)
            }
        };
        let mut sending = Sending {
            vigil: &self.vigil,
            limits: &self.limits,
            request,
            ours: Ours {
                by_caller: aim.by_caller(),
                sign: &sign,
                host: &permit.upstream().authority,
                client: &visitor.address,
                via: &self.via,
            },
            length: Length::None,
            progress: None,
            patience: self.limits.answer_head,
        };
        let (mut upload, mut kept) = (None, None);
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
            let (mut body, progress) = Upload::of(body, most);
            if matches!(aim.by, By::Grant(_)) {
                kept = Some(body.keep(&self.budget));
            }
            (upload, sending.progress) = (Some(body), Some(progress));
        }
        let (mut head, mut link) = sending.exchange(&permit, upload).await?;
        if let By::Grant(caller) = &aim.by {
            if self.wants_other_nonce(aim, &head) {
                // The rest of the body comes back with the connection's end.
                drop(link);
                (upload, sending.progress) = again(kept.as_deref(), sending.progress.is_some())?;
                (head, link) = sending.exchange(&permit, upload).await?;
                if self.wants_other_nonce(aim, &head) {
                    return Err(Error::UpstreamAuth);
                }
            }
            if head.to_us.says("invalid_token") || head.to_us.says("invalid_dpop_proof") {
                self.neighbours.forget_onward(caller);
                return Err(Error::UpstreamAuth);
            }
        }
        if let Some(kept) = &kept {
            kept.stop();
        }
        self.take(head, link, permit, aim, is_blob).await
    }

    /// Whether the host asks for a proof with another nonce, which we know from now on.
    fn wants_other_nonce(&self, aim: &Aim, head: &AnswerHead) -> bool {
        if let Some(nonce) = &head.to_us.nonce {
            self.neighbours.hear_nonce(&aim.host.id, nonce);
        }
        head.status == StatusCode::UNAUTHORIZED && head.to_us.says("use_dpop_nonce")
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
        aim: &Aim,
        is_blob: bool,
    ) -> Result<Response<AnswerBody>, Error> {
        let by_caller = aim.by_caller();
        let AnswerHead { status, mut headers, framing, keep, to_us: _ } = head;
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
                return Err(aim.by.moved());
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

    /// Whose request it is, the host that the token is for, and what the request will carry.
    async fn speaker(&self, shown: Shown<'_>, request: &Parts) -> Result<(Did, HostId, By), Error> {
        match shown {
            Shown::Bearer(token) => {
                let caller = self.caller(token).await?;
                Ok((caller.did.clone(), caller.audience.clone(), By::Session))
            }
            Shown::Dpop(token) => {
                let call = Call {
                    method: request.method.as_str(),
                    path: request.uri.path(),
                    proofs: oauth::proofs(&request.headers),
                };
                let caller = self.neighbours.check_grant(token, &call).await?;
                Ok((caller.did.clone(), caller.audience.clone(), By::Grant(caller)))
            }
        }
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

    fn aim_at(&self, home: &Home, by: By) -> Result<Aim, Error> {
        // Homes name hosts of the fleet; between a host's removal and the news of it there may be none.
        let host = self.neighbours.host(&home.host).ok_or(Error::Unavailable)?;
        Ok(Aim { host, by })
    }
}

impl By {
    /// The account lives elsewhere: a client with a session signs in again, one with a grant refreshes.
    fn moved(&self) -> Error {
        match self {
            Self::Nobody | Self::Session => Error::Moved,
            Self::Grant(_) => {
                Error::Grant { code: "invalid_token", why: "the token is for another host".to_owned() }
            }
        }
    }
}

impl From<AccessError> for Error {
    fn from(error: AccessError) -> Self {
        if let Some(code) = error.code() {
            return Self::Grant { code, why: error.to_string() };
        }
        tracing::warn!(cause = &error as &dyn std::error::Error, "a token could not be checked");
        Self::Unavailable
    }
}

/// Whether a token says, unchecked, that it is this account's.
fn claims(shown: Shown<'_>, did: &str) -> bool {
    match shown {
        Shown::Bearer(_) => false,
        Shown::Dpop(token) => oauth::claimed_account(token).is_some_and(|claimed| claimed == *did),
    }
}

/// The body for a second try, if there was one.
fn again(kept: Option<&Kept>, has_body: bool) -> Result<(Option<Upload>, Option<Rc<Progress>>), Error> {
    if !has_body {
        return Ok((None, None));
    }
    let (upload, progress) = kept.and_then(Kept::again).ok_or(Error::NotReady)?;
    Ok((Some(upload), Some(progress)))
}

/// A request on its way.
struct Sending<'a> {
    vigil: &'a Vigil,
    limits: &'a Limits,
    request: &'a Parts,
    ours: Ours<'a>,
    length: Length,
    progress: Option<Rc<Progress>>,
    /// How long the host may take once it has the whole request.
    patience: Duration,
}

/// What a request gets from us, whichever try it is.
struct Ours<'a> {
    by_caller: bool,
    /// Signs anew for each try: no host takes a proof twice.
    sign: &'a dyn Fn() -> Result<Option<oauth::Onward>, Error>,
    host: &'a HeaderValue,
    client: &'a HeaderValue,
    via: &'a HeaderValue,
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
        let Ours { by_caller, sign, host, client, via } = self.ours;
        let signed = sign()?;
        let ours = Onward { by_caller, signed: signed.as_ref(), host, client, via };
        headers::write_head(link.begin(upload, self.length), self.request, self.length, &ours);
        let exchange = link.head(Asked::new(&self.request.method, by_caller, signed.is_some()));
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
