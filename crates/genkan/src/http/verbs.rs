//! Routes of XRPC methods: a query is asked with GET, a procedure is called with POST.

use axum::handler::Handler;
use axum::routing::{MethodRouter, get, post};

use crate::wire::error::XrpcError;

/// A query: GET, or HEAD for its head alone.
pub(crate) fn query<H, T, S>(handler: H) -> MethodRouter<S>
where
    H: Handler<T, S>,
    T: 'static,
    S: Clone + Send + Sync + 'static,
{
    get(handler).fallback(|| async { XrpcError::wrong_verb("GET, HEAD") })
}

/// A procedure: POST.
pub(crate) fn procedure<H, T, S>(handler: H) -> MethodRouter<S>
where
    H: Handler<T, S>,
    T: 'static,
    S: Clone + Send + Sync + 'static,
{
    post(handler).fallback(|| async { XrpcError::wrong_verb("POST") })
}
