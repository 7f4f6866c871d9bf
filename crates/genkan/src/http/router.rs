//! The layers around every answer of this room, in one list, and the routes that need only their
//! state.

use std::panic::AssertUnwindSafe;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use futures_util::FutureExt as _;
use http::{HeaderValue, Method, StatusCode};

use super::json::BodyLimits;
use super::methods::Methods;
use super::state::HttpState;
use super::{describe_server, health, landing, oauth, pages, tls_check, verbs};
use crate::base::monotonic_now;
use crate::routing;
use crate::telemetry::RequestLine;
use crate::telemetry::metrics::{Histogram, Metrics, PANICS, REFUSALS, REQUEST_DURATION, REQUESTS};
use crate::wire::error::{ErrorName, unauthorized};
use crate::wire::{ClientAddr, REQUEST_ID, RequestId, ViaHost, XrpcError, cors, messages, rate_limit};

/// An extension of requests that the edge has already counted against the rate limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counted;

/// The routes outside OAuth, pages and the methods of `xrpc`.
pub(crate) fn own_routes(state: &HttpState) -> Router {
    Router::new()
        .route("/", get(landing::landing))
        .route("/robots.txt", get(landing::robots))
        .route("/xrpc/_health", verbs::query(health::version))
        .route("/tls-check", get(tls_check::tls_check))
        .with_state(state.clone())
        .merge(own_methods().with_state(state.clone()))
}

/// The XRPC methods that this room answers by itself.
pub(super) fn own_methods() -> Methods<HttpState> {
    Methods::new().answer(describe_server::DescribeServer, describe_server::describe_server)
}

/// Puts the layers around all local routes. The last line here is the outermost layer.
pub(crate) fn with_layers(routes: Router, state: &HttpState) -> Router {
    let shared = || state.clone();
    routes
        .fallback(no_route)
        .method_not_allowed_fallback(method_not_allowed)
        // Counts before the handler works. It is inside of the layers below, so refusals are logged
        // and have CORS.
        .layer(from_fn_with_state(shared(), limit_rate))
        // Turns a panic into a 500 of that one request, which is logged as every answer.
        .layer(from_fn_with_state(shared(), guard_panic))
        // On every answer, including refusals and 500s: browsers hide answers without CORS headers
        // from scripts.
        .layer(from_fn(answer_cross_origin))
        // Sees the answer as it leaves.
        .layer(from_fn_with_state(Observation::new(state), observe))
        // Outermost: the log and the limits need the client's address.
        .layer(from_fn_with_state(shared(), identify))
}

async fn identify(State(state): State<HttpState>, mut request: Request, next: Next) -> Response {
    let limits = BodyLimits {
        sent: state.config.limits.own_body.in_memory(),
        unpacked: state.config.limits.own_body_unpacked.in_memory(),
    };
    request.extensions_mut().insert(limits);
    if request.extensions().get::<ClientAddr>().is_none() {
        let unknown = std::net::IpAddr::from([0, 0, 0, 0]);
        let peer = request.extensions().get::<axum::extract::ConnectInfo<std::net::SocketAddr>>();
        let peer = peer.map_or(unknown, |peer| peer.0.ip());
        let (client, host) = state.trusted_peers.client(peer, request.headers());
        request.extensions_mut().insert(client);
        if let Some(host) = host {
            request.extensions_mut().insert(host);
        }
    }
    if request.extensions().get::<RequestId>().is_none() {
        request.extensions_mut().insert(RequestId::new());
    }
    next.run(request).await
}

/// The state of the layer that logs and measures. Metrics are looked up once.
#[derive(Clone, Debug)]
struct Observation {
    request_log: bool,
    metrics: Metrics,
    took: Histogram,
}

impl Observation {
    fn new(state: &HttpState) -> Self {
        Self {
            request_log: state.config.telemetry.request_log,
            metrics: state.metrics.clone(),
            took: state.metrics.histogram(&REQUEST_DURATION, &["local"]),
        }
    }
}

async fn observe(State(observed): State<Observation>, request: Request, next: Next) -> Response {
    let start = monotonic_now();
    let id = request.extensions().get::<RequestId>().cloned().unwrap_or_else(RequestId::new);
    let via = request.extensions().get::<ViaHost>().map(|via| via.client);
    let client = via.or_else(|| request.extensions().get::<ClientAddr>().map(|client| client.0));
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());

    let mut response = next.run(request).await;

    let took = start.elapsed();
    let status = response.status();
    let error = response.extensions().get::<ErrorName>().cloned();
    observed.took.observe(took);
    observed.metrics.counter(&REQUESTS, &["local", class(status)]).increment();
    if let Some(name) = &error {
        observed.metrics.counter(&REFUSALS, &[name.label()]).increment();
    }
    if observed.request_log {
        let line = RequestLine {
            id: &id.0,
            method: method.as_str(),
            path: &path,
            status: status.as_u16(),
            took,
            client,
            host: None,
            account: None,
            error: error.as_ref().map(|ErrorName(name)| name.as_ref()),
        };
        line.write();
    }
    if let Ok(value) = HeaderValue::from_str(&id.0) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

/// The class of a status, as a label of metrics.
pub(crate) fn class(status: StatusCode) -> &'static str {
    match status.as_u16() {
        100..200 => "1xx",
        200..300 => "2xx",
        300..400 => "3xx",
        400..500 => "4xx",
        _ => "5xx",
    }
}

async fn answer_cross_origin(request: Request, next: Next) -> Response {
    // Pages use cookies, so no other origin may read them.
    if pages::is_page(request.uri().path()) {
        return next.run(request).await;
    }
    if request.method() == Method::OPTIONS {
        return cors::preflight(request.headers()).map(|()| axum::body::Body::empty());
    }
    let mut response = next.run(request).await;
    cors::allow(response.headers_mut());
    response
}

async fn guard_panic(State(state): State<HttpState>, request: Request, next: Next) -> Response {
    // The request is moved into the handler, so the path is copied for the log first.
    let path = request.uri().path().to_owned();
    // Unwind safety: all state that handlers share is behind locks that recover from poisoning.
    let Ok(response) = AssertUnwindSafe(next.run(request)).catch_unwind().await else {
        state.metrics.counter(&PANICS, &[]).increment();
        return XrpcError::internal(format!("panicked while answering {path}")).into_response();
    };
    response
}

async fn limit_rate(State(state): State<HttpState>, request: Request, next: Next) -> Response {
    let client = request.extensions().get::<ClientAddr>().copied();
    // A request that the edge has counted is not counted again.
    let (Some(client), None) = (client, request.extensions().get::<Counted>()) else {
        return next.run(request).await;
    };
    let now = state.clock.now();
    // A request that a host passes on counts for its user and, against a higher limit, for the
    // host.
    let verdict = match request.extensions().get::<ViaHost>() {
        Some(via) => state.limits.request(via.client, Some(&via.host), now),
        None => state.limits.request(client.0, None, now),
    };
    let Some(verdict) = verdict else { return next.run(request).await };
    let mut response = match verdict.check(now) {
        Ok(()) => next.run(request).await,
        // OAuth clients read OAuth's error form, and expect a nonce for the next proof.
        Err(over) if request.uri().path().starts_with("/oauth/") => oauth::over_limit(&state.oauth, over),
        Err(over) => XrpcError::from(over).into_response(),
    };
    // The headers go on allowed answers too, so that clients can slow down before they are refused.
    rate_limit::put(response.headers_mut(), &verdict);
    response
}

/// Answers where no route fits. Methods that a PDS answers were forwarded by the edge and never
/// come here.
async fn no_route(request: Request) -> XrpcError {
    match routing::method::of_path(request.uri().path()) {
        None => XrpcError::new(StatusCode::NOT_FOUND, "NotFound", messages::NOTHING_HERE),
        Some(Err(_)) => XrpcError::invalid(messages::BAD_PATH),
        Some(Ok(_)) if request.headers().contains_key(http::header::AUTHORIZATION) => {
            XrpcError::not_here(NO_SUCH_METHOD)
        }
        Some(Ok(_)) => unauthorized("AuthMissing", NO_SUCH_METHOD),
    }
}

const NO_SUCH_METHOD: &str = "Genkan does not answer this method; call it at the account's PDS, which its DID document names, or at a public \
    AppView";

async fn method_not_allowed(request: Request) -> XrpcError {
    if request.uri().path().starts_with("/xrpc/") {
        // Each method's own route says so with `Allow`; see `verbs`.
        XrpcError::invalid(messages::METHOD_NOT_ALLOWED)
    } else {
        XrpcError::method_not_allowed("GET, HEAD")
    }
}
