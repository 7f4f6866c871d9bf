//! Routes of XRPC methods: queries by GET, procedures by POST.

use axum::handler::Handler;
use axum::routing::{MethodRouter, get, post};

use crate::wire::error::XrpcError;

/// The route of a query: GET, or HEAD for the head alone.
pub(crate) fn query<H, T, S>(handler: H) -> MethodRouter<S>
where
    H: Handler<T, S>,
    T: 'static,
    S: Clone + Send + Sync + 'static,
{
    get(handler).fallback(|| async { XrpcError::wrong_verb("GET, HEAD") })
}

/// The route of a procedure: POST.
pub(crate) fn procedure<H, T, S>(handler: H) -> MethodRouter<S>
where
    H: Handler<T, S>,
    T: 'static,
    S: Clone + Send + Sync + 'static,
{
    post(handler).fallback(|| async { XrpcError::wrong_verb("POST") })
}
