//! The way of one request: send it where it is aimed, take the answer.

use std::rc::Rc;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::time::Instant;

use super::abroad::Abroad;
use super::aim::{Aim, By, HomeAim, Visitor};
use super::answer::{AnswerBody, Forwarded};
use super::answer_head::AnswerHead;
use super::answer_headers;
use super::breaker::Breakers;
use super::dial::Dialler;
use super::error::{Cause, Error};
use super::exchange::{Ours, Sending};
use super::inspect::{MAX_PEEK, is_small_json, names_error};
use super::limits::Limits;
use super::link::Link;
use super::neighbours::Neighbours;
use super::request_head::{self, Length, Signed};
use super::upload::{Budget, Kept, Progress, Upload};
use super::upstream::{Permit, Upstreams};
use super::vigil::Vigil;

/// Carries requests to hosts. One for each edge thread.
#[derive(Debug)]
pub(crate) struct Forwarder<N> {
    pub(super) neighbours: N,
    pub(super) abroad: Abroad,
    pub(super) upstreams: Upstreams,
    pub(super) vigil: Rc<Vigil>,
    pub(super) limits: Rc<Limits>,
    pub(super) budget: Rc<Budget>,
    /// Our name in `Via`.
    pub(super) via: HeaderValue,
}

impl<N: Neighbours> Forwarder<N> {
    pub(crate) fn new(
        neighbours: N,
        via: HeaderValue,
        breakers: Breakers,
        dialler: Dialler,
        limits: Limits,
        abroad: Abroad,
    ) -> Self {
        let (limits, vigil) = (Rc::new(limits), Vigil::new());
        let at_once = abroad.manners.at_once;
        let upstreams = Upstreams::new(breakers, dialler, Rc::clone(&limits), at_once, Rc::clone(&vigil));
        Self { neighbours, abroad, upstreams, vigil, limits, budget: Budget::new(), via }
    }

    /// Sends a request where it is aimed, and takes the answer's head.
    pub(crate) async fn send(
        &self,
        aim: &Aim,
        request: &Parts,
        body: Incoming,
        visitor: &Visitor,
    ) -> Result<Response<AnswerBody>, Error> {
        if request_head::has_passed(&request.headers, &self.via) {
            return Err(Error::Loop);
        }
        match aim {
            Aim::Home(aim) => self.send_home(aim, request, body, visitor).await,
            // Boxed: the way home is the usual one, and should not carry what it does not need.
            Aim::Read(place) => Box::pin(self.read_elsewhere(place, request, &body, visitor)).await,
            Aim::Linked(aim) => Box::pin(self.call_linked(aim, request, body)).await,
        }
    }

    /// To a host of the fleet.
    async fn send_home(
        &self,
        aim: &HomeAim,
        request: &Parts,
        body: Incoming,
        visitor: &Visitor,
    ) -> Result<Response<AnswerBody>, Error> {
        let permit = self.upstreams.of(&aim.host).admit()?;
        let method = method_of(request);
        let is_blob = method.eq_ignore_ascii_case("com.atproto.sync.getBlob");
        let sign = || match &aim.by {
            By::Nobody | By::Session => Ok(None),
            By::Grant(caller) => {
                let path = request.uri.path();
                let signed = self.neighbours.sign_onward(caller, &aim.host, request.method.as_str(), path);
                signed.map(|signed| Some(Signed::Host(signed))).ok_or(Error::UpstreamAuth)
            }
        };
        let mut sending = Sending {
            vigil: &self.vigil,
            limits: &self.limits,
            request,
            target: target_of(request),
            ours: Ours {
                by_caller: aim.by_caller(),
                sign: &sign,
                host: &permit.upstream().authority,
                client: Some(&visitor.address),
                via: &self.via,
            },
            length: Length::None,
            progress: None,
            follows: false,
            patience: self.limits.answer_head,
        };
        let budget = matches!(aim.by, By::Grant(_)).then_some(&self.budget);
        let Input { mut upload, kept, length, progress, patience } =
            Input::of(request, body, &self.limits, budget)?;
        (sending.length, sending.progress, sending.patience) = (length, progress, patience);
        let (mut head, mut link) = sending.exchange(&permit, upload).await?;
        if let By::Grant(caller) = &aim.by {
            if self.wants_other_nonce(aim, &head) {
                // The rest of the body comes back with the connection's end.
                drop(link);
                (upload, sending.progress) = again(kept.as_ref(), sending.progress.is_some())?;
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
    fn wants_other_nonce(&self, aim: &HomeAim, head: &AnswerHead) -> bool {
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
        aim: &HomeAim,
        is_blob: bool,
    ) -> Result<Response<AnswerBody>, Error> {
        let by_caller = aim.by_caller();
        let AnswerHead { status, mut headers, framing, keep, to_us: _ } = head;
        permit.upstream().judge(status);
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
        answer_headers::guard(&mut headers, by_caller, is_blob);
        Ok(response(status, headers, body))
    }
}

/// An answer as it goes to the client.
pub(super) fn response(status: StatusCode, headers: HeaderMap, mut body: Forwarded) -> Response<AnswerBody> {
    let body = match body.at_hand() {
        Some(whole) => AnswerBody::whole(whole),
        None => AnswerBody::Forwarded(body),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// Path and query, as they came.
pub(super) fn target_of(request: &Parts) -> &str {
    request.uri.path_and_query().map_or("/", |target| target.as_str())
}

/// The method that a request names.
pub(super) fn method_of(request: &Parts) -> &str {
    request.uri.path().strip_prefix("/xrpc/").unwrap_or_default()
}

/// A request's body, if it has one.
pub(super) struct Input {
    pub(super) upload: Option<Upload>,
    pub(super) kept: Option<Rc<Kept>>,
    pub(super) length: Length,
    pub(super) progress: Option<Rc<Progress>>,
    /// How long the host may take once it has it.
    pub(super) patience: Duration,
}

impl Input {
    /// With a budget, what goes is kept for another try.
    pub(super) fn of(
        request: &Parts,
        body: Incoming,
        limits: &Limits,
        budget: Option<&Rc<Budget>>,
    ) -> Result<Self, Error> {
        if body.is_end_stream() {
            let patience = limits.answer_head;
            return Ok(Self { upload: None, kept: None, length: Length::None, progress: None, patience });
        }
        if request.method != Method::POST {
            return Err(Error::UnexpectedBody);
        }
        let (most, patience) = limits.of_method(method_of(request));
        let size = body.size_hint();
        if size.lower() > most {
            return Err(Error::TooLarge);
        }
        let length = size.exact().map_or(Length::Chunked { is_first: true }, Length::Known);
        let (mut upload, progress) = Upload::of(body, most);
        let kept = budget.map(|budget| upload.keep(budget));
        Ok(Self { upload: Some(upload), kept, length, progress: Some(progress), patience })
    }
}

/// The body for a second try, if there was one.
pub(super) fn again(
    kept: Option<&Rc<Kept>>,
    has_body: bool,
) -> Result<(Option<Upload>, Option<Rc<Progress>>), Error> {
    if !has_body {
        return Ok((None, None));
    }
    let (upload, progress) = kept.and_then(Kept::again).ok_or(Error::NotReady)?;
    Ok((Some(upload), Some(progress)))
}
