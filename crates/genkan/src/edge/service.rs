//! One request, from its head to its answer: forwarded, answered by `http`, or refused here.

use std::net::IpAddr;
use std::rc::Rc;

use http::header::{HOST, HeaderMap, HeaderValue, UPGRADE};
use http::request::Parts;
use http::{Method, Request, Response, Version};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::activity::Activity;
use super::address;
use super::answer;
use super::context::ConnectionContext;
use super::counters::By;
use super::http2_stream;
use super::local;
use super::tracked_body::TrackedBody;
use crate::base::monotonic_now;
use crate::forward::{AnswerBody, Call, Destination, Rooms};
use crate::routing::{Decision, decide, method, table};
use crate::telemetry::RequestLine;
use crate::wire::error::ErrorName;
use crate::wire::{Authorization, ClientAddr, DPOP_NONCE, REQUEST_ID, RequestId, XrpcError, cors, messages};

/// Answers one request.
pub(super) async fn answer<R: Rooms>(
    connection: Rc<ConnectionContext<R>>,
    request: Request<Incoming>,
) -> Response<TrackedBody> {
    // First of all: from here on, dropping this future counts as a cancelled request.
    let under_way = UnderWay::begin(&connection.activity);
    let log = connection.worker.settings().request_log.then(|| Line::of(&connection, &request));
    let mut by_proof = false;
    let (by, destination, mut response, error) = match route(&connection, request, &mut by_proof).await {
        Ok((by, destination, response)) => (by, destination, response, None),
        Err(error) => {
            let name = ErrorName(error.name.clone());
            connection.worker.failures().refused(name.label());
            (By::Edge, None, answer::respond(error), Some(name.0))
        }
    };
    // On refusals as well: a client whose nonce is old learns the next one from the refusal.
    if by_proof && let Ok(nonce) = HeaderValue::from_str(&connection.worker.rooms().nonce()) {
        response.headers_mut().insert(DPOP_NONCE, nonce);
    }
    connection.worker.counters().answered(by, response.status());
    // `http` logs the requests that it answers itself.
    if let Some(line) = log
        && by != By::Genkan
    {
        line.write(&mut response, destination.as_ref(), error.as_deref());
    }
    let activity = under_way.answered();
    response.map(|body| TrackedBody::new(body, activity, http2_stream::intake()))
}

/// An unanswered request. Dropping it before the answer means the client cancelled.
struct UnderWay(Option<Rc<Activity>>);

impl UnderWay {
    fn begin(activity: &Rc<Activity>) -> Self {
        activity.begin();
        Self(Some(Rc::clone(activity)))
    }

    /// Hands the activity to the answer's body, which ends the request when it is dropped.
    fn answered(mut self) -> Rc<Activity> {
        self.0.take().expect("taken only here, and `self` is gone then")
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Some(activity) = &self.0 {
            activity.cancel();
        }
    }
}

/// Who answered, and where the request was forwarded, if it was.
type Answered = (By, Option<Destination>, Response<AnswerBody>);

/// Answers a request. Notes in `by_proof` whether it came with a token that is bound to a key.
async fn route<R: Rooms>(
    connection: &ConnectionContext<R>,
    request: Request<Incoming>,
    by_proof: &mut bool,
) -> Result<Answered, XrpcError> {
    let worker = &connection.worker;
    let (parts, body) = request.into_parts();
    let authorization = Authorization::of(&parts.headers);
    *by_proof = matches!(authorization, Authorization::Dpop(_));
    if let Some(error) = faulty(&parts) {
        return Err(error);
    }
    let Some(named) = method::of_path(parts.uri.path()) else {
        return Box::pin(local_answer(connection, Request::from_parts(parts, body))).await;
    };
    // Before the name is checked: a browser needs the CORS headers even if the method is unknown.
    if parts.method == Method::OPTIONS {
        let response = cors::preflight(&parts.headers).map(|()| AnswerBody::Whole(None));
        return Ok((By::Edge, None, response));
    }
    let Ok(name) = named else {
        return if parts.uri.path() == HEALTH {
            Box::pin(local_answer(connection, Request::from_parts(parts, body))).await
        } else {
            Err(answer::bad_path())
        };
    };
    if parts.headers.contains_key(UPGRADE) && asks_for_websocket(&parts.headers) {
        return Err(answer::no_websocket());
    }
    let row = table::row(name);
    // `http` counts the requests that Genkan answers, because it knows more about them.
    let Decision::Forward(route) = decide::decide(row, &parts.method, authorization, parts.uri.query())?
    else {
        return Box::pin(local_answer(connection, Request::from_parts(parts, body))).await;
    };
    // Counted before any lookup, so that a flood costs neither the database nor a host.
    let (address, via) = connection.client(&parts.headers);
    match &via {
        Some(via) => worker.rooms().count(via.client, Some(&via.host))?,
        None => worker.rooms().count(address, None)?,
    }
    // What a host says about its client is not passed on: another host would count it as that
    // client's request. The peer's own header value was created with the connection. Only clients behind a proxy need
    // another.
    let far = (address != connection.peer.address()).then(|| address::client(address));
    let client = far.as_ref().unwrap_or_else(|| connection.peer.client());
    let call = Call { row, route, request: &parts, client };
    let destination = worker.forwarder().find_destination(&call).await?;
    let sent = worker.forwarder().send(&destination, &call, body).await;
    if let Err(error) = &sent {
        worker.failures().failed(&destination, error);
    }
    let sent = sent?;
    Ok((By::Host, Some(destination), sent))
}

/// Hands a request to `http`, with the client's address and a new request id.
async fn local_answer<R: Rooms>(
    connection: &ConnectionContext<R>,
    mut request: Request<Incoming>,
) -> Result<Answered, XrpcError> {
    let (client, via) = connection.client(request.headers());
    request.extensions_mut().insert(ClientAddr(client));
    if let Some(via) = via {
        request.extensions_mut().insert(via);
    }
    request.extensions_mut().insert(RequestId::new());
    let patience = connection.worker.settings().forward.idle;
    let edge = connection.worker.edge();
    let response = local::answer(&edge.router, &edge.control, request, patience).await;
    response
        .map(|response| (By::Genkan, None, response))
        .ok_or_else(|| XrpcError::internal("the task that answers ended without an answer"))
}

/// Refuses HTTP/2 requests that the strict reader would refuse on HTTP/1.1.
///
/// Frames make clear where a request ends, but the library passes verbs and hosts that no host
/// should see.
fn faulty(request: &Parts) -> Option<XrpcError> {
    if request.version != Version::HTTP_2 {
        return None;
    }
    let verb = &request.method;
    if *verb == Method::CONNECT
        || *verb == Method::TRACE
        || verb.as_str().bytes().any(|byte| byte.is_ascii_lowercase())
    {
        return Some(answer::method_not_allowed());
    }
    // HTTP/2 names the host in `:authority`, and a client may send `Host` too (RFC 9113 §8.3.1).
    // With two different ones, a request for one server could pass as a request for another.
    let mut hosts = request.headers.get_all(HOST).iter();
    let (host, authority) = (hosts.next(), request.uri.authority());
    let agree = match (host, authority) {
        (None, None) => false,
        (Some(host), Some(authority)) => host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()),
        _ => true,
    };
    // `user@host` in an authority is deprecated for HTTP (RFC 9110 §4.2.4), and parsers read it
    // differently.
    let has_user = authority.is_some_and(|authority| authority.as_str().contains('@'));
    let is_clear = agree && hosts.next().is_none() && !has_user;
    (!is_clear).then(|| XrpcError::invalid(messages::ONE_HOST))
}

fn asks_for_websocket(headers: &HeaderMap) -> bool {
    headers.get_all(UPGRADE).iter().any(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// The path under `/xrpc/` that load balancers check. It is not an NSID.
const HEALTH: &str = "/xrpc/_health";

/// The parts of a request's log line that are known before the answer.
struct Line {
    verb: Method,
    path: String,
    client: IpAddr,
    began: Instant,
}

impl Line {
    fn of<R: Rooms>(connection: &ConnectionContext<R>, request: &Request<Incoming>) -> Self {
        Self {
            verb: request.method().clone(),
            path: request.uri().path().to_owned(),
            client: connection.named_client(request.headers()),
            began: monotonic_now(),
        }
    }

    fn write(
        self,
        response: &mut Response<AnswerBody>,
        destination: Option<&Destination>,
        error: Option<&str>,
    ) {
        let id = RequestId::new();
        // Only refusals name the request. A forwarded answer carries none of Genkan's headers
        // beyond the fixed list.
        if error.is_some()
            && let Ok(value) = HeaderValue::from_str(&id.0)
        {
            response.headers_mut().insert(REQUEST_ID, value);
        }
        let line = RequestLine {
            id: &id.0,
            method: self.verb.as_str(),
            path: &self.path,
            status: response.status().as_u16(),
            took: self.began.elapsed(),
            client: Some(self.client),
            host: destination.map(Destination::name),
            account: None,
            error,
        };
        line.write();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_http2_request_has_a_usual_verb_and_names_one_host() {
        let fault = |verb: &str, uri: &str, hosts: &[&str]| {
            let mut request = Request::builder().version(Version::HTTP_2).method(verb).uri(uri);
            for host in hosts {
                request = request.header(HOST, *host);
            }
            faulty(&request.body(()).unwrap().into_parts().0)
        };
        for (uri, hosts) in [
            ("https://a.example/x", &[][..]),
            ("https://a.example/x", &["A.example"]),
            ("/x", &["a.example"]),
        ] {
            assert!(fault("GET", uri, hosts).is_none(), "{uri} {hosts:?}");
        }
        for (uri, hosts) in [
            ("/x", &[][..]),
            ("/x", &["a.example", "b.example"]),
            ("https://a.example/x", &["b.example"]),
            ("https://a.example/x", &["a.example", "a.example"]),
            ("https://user@a.example/x", &[]),
        ] {
            assert_eq!(
                fault("GET", uri, hosts).map(|error| error.status.as_u16()),
                Some(400),
                "{uri} {hosts:?}"
            );
        }
        for verb in ["TRACE", "CONNECT", "get"] {
            assert!(fault(verb, "https://a.example/x", &[]).is_some(), "{verb}");
        }
    }
}
