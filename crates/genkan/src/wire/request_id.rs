//! The id of a request, which ties its line in the log to its answer.

use std::sync::Arc;

use http::HeaderName;

use crate::base::random;

/// Names one request, in logs and to its client.
#[derive(Clone, Debug)]
pub(crate) struct RequestId(pub(crate) Arc<str>);

impl RequestId {
    pub(crate) fn new() -> Self {
        Self(random::id().into())
    }
}

/// The header by which an answer names its request.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
