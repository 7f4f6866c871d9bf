//! What a client learns of a rate limit: the published `RateLimit-*` headers, and 429.

use http::StatusCode;
use http::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};

use super::XrpcError;
use super::messages;
use crate::limits::{OverLimit, Verdict};

/// Adds the rate-limit headers. A limit that an answer already names is the tighter one and stays.
pub(crate) fn put(headers: &mut HeaderMap, verdict: &Verdict) {
    // Several limits can apply to one request. The handler's own limit is put on the answer before
    // the layer around all routes puts the general one.
    if headers.contains_key("ratelimit-limit") {
        return;
    }
    for (name, value) in fields(verdict) {
        headers.insert(name, value);
    }
}

/// 429 `RateLimitExceeded`, with the seconds until another try makes sense.
impl From<OverLimit> for XrpcError {
    fn from(over: OverLimit) -> Self {
        let error =
            Self::new(StatusCode::TOO_MANY_REQUESTS, "RateLimitExceeded", messages::TOO_MANY_REQUESTS)
                .with(RETRY_AFTER, over.retry_after.into());
        fields(&over.verdict).into_iter().fold(error, |error, (name, value)| error.with(name, value))
    }
}

fn fields(verdict: &Verdict) -> [(HeaderName, HeaderValue); 4] {
    let name = HeaderName::from_static;
    [
        (name("ratelimit-limit"), verdict.rate.count.into()),
        (name("ratelimit-remaining"), verdict.remaining.into()),
        // Seconds since the epoch, as at the reference PDS; the draft standard counts from now.
        (name("ratelimit-reset"), verdict.reset.as_seconds().into()),
        (
            name("ratelimit-policy"),
            format!("{};w={}", verdict.rate.count, verdict.rate.per.as_secs())
                .parse()
                .expect("two numbers make a header value"),
        ),
    ]
}
