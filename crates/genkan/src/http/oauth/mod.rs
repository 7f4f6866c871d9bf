//! The endpoints of the authorization server for programs. The pages for browsers are in `pages`.
//!
//! Three endpoints take proofs. Each of their answers carries the nonce for the next proof,
//! refusals and 500s too, because clients do not try again without it (RFC 9449 §8).

mod client;
mod error;
mod form;
mod metadata;
mod par;
mod revoke;
#[cfg(test)]
mod tests;
mod token;

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use futures_util::FutureExt as _;
use http::header::{ALLOW, CACHE_CONTROL, PRAGMA};
use http::{HeaderValue, StatusCode};

use crate::app::App;
use crate::http::deadline::{ANSWER_WITHIN, Deadline};
use crate::limits::OverLimit;
use crate::links;
use crate::oauth::OAuth;
use crate::wire::{DPOP_NONCE, messages};
use error::Refusal;

pub(crate) fn routes(app: &App) -> Router {
    let with_proofs = Router::new()
        .route(TOKEN, post(token::token).fallback(only_post))
        .route(REVOKE, post(revoke::revoke).fallback(only_post))
        .layer(from_fn_with_state(ANSWER_WITHIN, answer_in_time))
        .merge(
            Router::new()
                .route(PAR, post(par::par).fallback(only_post))
                .layer(from_fn_with_state(PUSHED_WITHIN, answer_in_time)),
        )
        .layer(from_fn_with_state(app.clone(), give_nonce));
    Router::new()
        .route("/.well-known/oauth-authorization-server", get(metadata::authorization_server))
        .route("/.well-known/oauth-protected-resource", get(metadata::protected_resource))
        .route("/oauth/jwks", get(metadata::jwks))
        .route(links::STABLE, get(client::stable))
        .route(links::KEY_SET, get(client::key_set))
        .route(&format!("{}{{name}}", links::OTHERS), get(client::other))
        .merge(with_proofs)
        .with_state(app.clone())
}

/// Answers 503 when the work takes longer than `limit`. It goes on, and the client sends its request
/// again: nothing that works once is used up for an answer that did not come.
async fn answer_in_time(State(limit): State<Duration>, request: Request, next: Next) -> Response {
    let (deadline, request) = Deadline::begin(limit, request);
    deadline.go_on(next.run(request)).await.unwrap_or_else(|| Refusal::out_of_time().into_response())
}

async fn give_nonce(State(app): State<App>, request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    // A panic must not cost the client its nonce. All shared state is behind locks that recover
    // from poisoning.
    let answered = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    let response = answered
        .unwrap_or_else(|_| Refusal::internal(format!("panicked while answering {path}")).into_response());
    with_nonce(&app.oauth, response)
}

fn with_nonce(oauth: &OAuth, mut response: Response) -> Response {
    let headers = response.headers_mut();
    if let Ok(nonce) = HeaderValue::from_str(&oauth.nonce()) {
        headers.insert(DPOP_NONCE, nonce);
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    response
}

/// 429 as an OAuth error, for requests that a layer refused before they reached an endpoint.
pub(super) fn over_limit(oauth: &OAuth, over: OverLimit) -> Response {
    with_nonce(oauth, Refusal::from(over).into_response())
}

async fn only_post() -> Response {
    let mut response =
        Refusal::of(StatusCode::METHOD_NOT_ALLOWED, "invalid_request", messages::METHOD_NOT_ALLOWED)
            .into_response();
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST, OPTIONS"));
    response
}

/// The longest time until a pushed request is answered. The documents of an app and its permission
/// sets may take 15 seconds.
const PUSHED_WITHIN: Duration = Duration::from_secs(20);
const PAR: &str = "/oauth/par";
const TOKEN: &str = "/oauth/token";
const REVOKE: &str = "/oauth/revoke";
