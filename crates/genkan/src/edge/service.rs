//! One request, from its head to whoever answers it.

use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST, HeaderMap, UPGRADE};
use http::{Method, Request, Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::address::{self, Peer};
use super::answer::{self, Problem};
use super::local;
use super::pulse::Pulse;
use super::tally::By;
use super::worker::Worker;
use crate::base::random;
use crate::forward::{AnswerBody, Cut, Error, Neighbours};
use crate::http::{ClientAddr, RequestId, ViaHost};
use crate::routing::{Credential, Way, decide, method, table};

/// What all requests of one connection share.
#[derive(Debug)]
pub(super) struct Session<N> {
    pub(super) worker: Rc<Worker<N>>,
    pub(super) peer: Peer,
    /// The peer's word on who is behind it counts.
    pub(super) is_believed: bool,
    pub(super) pulse: Rc<Pulse>,
}

/// Answers one request.
pub(super) async fn answer<N: Neighbours>(
    session: Rc<Session<N>>,
    request: Request<Incoming>,
) -> Response<Tracked<N>> {
    let line = session.worker.settings().request_log.then(|| Line::of(&request));
    session.pulse.begin();
    let (by, response) = match route(&session, request).await {
        Ok(answered) => answered,
        Err(problem) => (By::Edge, problem.into_response()),
    };
    session.worker.tally().answered(by, response.status());
    let status = response.status();
    response.map(|body| Tracked { body, session, line: line.map(|line| (line, by, status)), bytes: 0 })
}

async fn route<N: Neighbours>(
    session: &Session<N>,
    request: Request<Incoming>,
) -> Result<(By, Response<AnswerBody>), Problem> {
    let worker = &session.worker;
    check_verb_and_host(&request)?;
    let (parts, body) = request.into_parts();
    let Some(named) = method::of_path(parts.uri.path()) else {
        return local_answer(session, Request::from_parts(parts, body)).await;
    };
    if parts.method == Method::OPTIONS {
        return Ok((By::Edge, answer::preflight(&parts.headers)));
    }
    let Ok(name) = named else {
        return if parts.uri.path() == HEALTH {
            local_answer(session, Request::from_parts(parts, body)).await
        } else {
            Err(Problem::crooked_path())
        };
    };
    if parts.headers.contains_key(UPGRADE) && asks_for_websocket(&parts.headers) {
        return Err(Problem::no_websocket());
    }
    let way = decide::decide(table::row(name), &parts.method, credential(&parts.headers), parts.uri.query())?;
    if way == Way::Local {
        return local_answer(session, Request::from_parts(parts, body)).await;
    }
    let (client, via) = session.client(&parts.headers);
    worker.neighbours().count(client, via.as_ref().map(|host| &*host.0))?;
    let aim = worker.forwarder().aim(way).await?;
    let far = (client != session.peer.address()).then(|| address::visitor(client));
    let visitor = far.as_ref().unwrap_or_else(|| session.peer.visitor());
    let sent = worker.forwarder().send(&aim, parts, body, visitor).await;
    if let Err(Error::Unreachable(cause)) = &sent {
        tracing::warn!(host.id = aim.host_name(), %cause, "a host could not be reached");
    }
    Ok((By::Host, sent?))
}

/// Hands a request to Genkan's own methods.
async fn local_answer<N: Neighbours>(
    session: &Session<N>,
    mut request: Request<Incoming>,
) -> Result<(By, Response<AnswerBody>), Problem> {
    let (client, via) = session.client(request.headers());
    request.extensions_mut().insert(ClientAddr(client));
    if let Some(via) = via {
        request.extensions_mut().insert(via);
    }
    request.extensions_mut().insert(RequestId::new());
    let patience = session.worker.settings().forward.idle;
    let doors = session.worker.doors();
    let response = local::answer(&doors.router, &doors.control, request, patience).await;
    response.map(|response| (By::Genkan, response)).ok_or_else(Problem::internal)
}

impl<N: Neighbours> Session<N> {
    /// The client, and the host that passed the request on, if one did.
    fn client(&self, headers: &HeaderMap) -> (IpAddr, Option<ViaHost>) {
        if !self.is_believed {
            return (self.peer.address(), None);
        }
        let (client, via) = self.worker.doors().trusted.client(self.peer.address(), headers);
        (client.0, via)
    }
}

/// What the strict reader of heads has seen to on HTTP/1 holds on HTTP/2 as well.
fn check_verb_and_host(request: &Request<Incoming>) -> Result<(), Problem> {
    if request.version() != Version::HTTP_2 {
        return Ok(());
    }
    let verb = request.method();
    if *verb == Method::CONNECT
        || *verb == Method::TRACE
        || verb.as_str().bytes().any(|byte| byte.is_ascii_lowercase())
    {
        return Err(Problem::verb());
    }
    let mut hosts = request.headers().get_all(HOST).iter();
    let (host, authority) = (hosts.next(), request.uri().authority());
    let agree = match (host, authority) {
        (None, None) => false,
        (Some(host), Some(authority)) => host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()),
        _ => true,
    };
    let has_user = authority.is_some_and(|authority| authority.as_str().contains('@'));
    if agree && hosts.next().is_none() && !has_user {
        return Ok(());
    }
    Err(Problem::new(StatusCode::BAD_REQUEST, "InvalidRequest", "Malformed: Host is not there exactly once"))
}

/// What the request shows of whom it speaks for.
fn credential(headers: &HeaderMap) -> Credential<'_> {
    let mut shown = headers.get_all(AUTHORIZATION).iter();
    let Some(first) = shown.next() else { return Credential::None };
    if shown.next().is_some() {
        return Credential::Repeated;
    }
    let Some((scheme, token)) = first.to_str().ok().and_then(|text| text.split_once(' ')) else {
        return Credential::Foreign;
    };
    if scheme.eq_ignore_ascii_case("dpop") {
        Credential::Dpop
    } else if scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && !token.contains(' ') {
        if headers.contains_key("dpop") { Credential::Dpop } else { Credential::Bearer(token) }
    } else {
        Credential::Foreign
    }
}

fn asks_for_websocket(headers: &HeaderMap) -> bool {
    headers.get_all(UPGRADE).iter().any(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Not a method name, yet asked for under `/xrpc/` by load balancers everywhere.
const HEALTH: &str = "/xrpc/_health";

/// An answer's body that tells its connection and the log when it has ended.
#[derive(Debug)]
pub(super) struct Tracked<N> {
    body: AnswerBody,
    session: Rc<Session<N>>,
    line: Option<(Line, By, StatusCode)>,
    bytes: u64,
}

impl<N> Body for Tracked<N> {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            this.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<N> Drop for Tracked<N> {
    fn drop(&mut self) {
        self.session.pulse.end();
        if let Some((line, by, status)) = &self.line {
            tracing::info!(
                target: "genkan::request",
                {
                request.id = %line.id,
                request.verb = %line.verb,
                request.path = %line.path,
                answer.by = by.as_str(),
                answer.status = status.as_u16(),
                answer.bytes = self.bytes,
                duration_ms = u64::try_from(line.began.elapsed().as_millis()).unwrap_or(u64::MAX)
                },
                "{} {} {}", line.verb, line.path, status.as_u16(),
            );
        }
    }
}

/// What a request's line in the log says of its beginning. Never its query: accounts and more stand there.
#[derive(Debug)]
struct Line {
    id: String,
    verb: Method,
    path: Box<str>,
    began: Instant,
}

impl Line {
    fn of(request: &Request<Incoming>) -> Self {
        Self {
            id: random::id(),
            verb: request.method().clone(),
            path: request.uri().path().chars().take(MAX_LOGGED_PATH).collect(),
            began: Instant::now(),
        }
    }
}

const MAX_LOGGED_PATH: usize = 400;
