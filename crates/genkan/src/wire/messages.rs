//! Texts that more than one place says: one text for one fact.
//!
//! Those that clients or hosts match are pinned by a test in `http::answers`; they stay equal to the byte.

/// 401: the request has no token.
pub(crate) const AUTHENTICATION_REQUIRED: &str = "Authentication Required";
/// 400: a token is shown by a scheme that is not usable here.
pub(crate) const UNEXPECTED_AUTHORIZATION: &str = "Unexpected authorization type";
/// 400: the header is not one scheme and one token.
pub(crate) const MALFORMED_AUTHORIZATION: &str = "Malformed authorization header";
/// 400: two tokens might speak for two accounts.
pub(crate) const DUPLICATE_AUTHORIZATION: &str = "duplicate Authorization header";
/// 401: moderation has taken the account down.
pub(crate) const TAKEN_DOWN: &str = "Account has been taken down";
/// 400: a path under `/xrpc/` that names no method.
pub(crate) const BAD_PATH: &str = "the path must be /xrpc/ followed by one method name";
/// 400: without one host the request might be meant for another server (RFC 9112 §3.2).
pub(crate) const ONE_HOST: &str = "exactly one Host header is required";
/// 400: the client left while it sent the body, or sent it broken.
pub(crate) const TRUNCATED_BODY: &str = "the request body was truncated";
/// 404: no page, file or method is at the path.
pub(crate) const NOTHING_HERE: &str = "nothing is at this path";
/// 405: on no path is this method served.
pub(crate) const METHOD_NOT_ALLOWED: &str = "method not allowed";
/// 429: a rate limit is exceeded.
pub(crate) const TOO_MANY_REQUESTS: &str = "too many requests, try again later";
/// 500: a bug. The client learns nothing else.
pub(crate) const INTERNAL: &str = "internal server error";
