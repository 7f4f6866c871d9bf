//! Texts that appear in more than one place: one text for one fact.
//!
//! Clients and hosts match some texts, most of them those of the reference PDS. These stay equal to
//! the byte; the test `texts_that_clients_and_hosts_match` in `http::answers` lists and pins them.

/// 401: the request has no token.
pub(crate) const AUTHENTICATION_REQUIRED: &str = "Authentication Required";
/// 400: the token's scheme is not accepted here.
pub(crate) const UNEXPECTED_AUTHORIZATION: &str = "Unexpected authorization type";
/// 400: the header is not one scheme and one token.
pub(crate) const MALFORMED_AUTHORIZATION: &str = "Malformed authorization header";
/// 400: two tokens might stand for two accounts.
pub(crate) const DUPLICATE_AUTHORIZATION: &str = "duplicate Authorization header";
/// 401: moderation has taken the account down.
pub(crate) const TAKEN_DOWN: &str = "Account has been taken down";
/// 400: the path under `/xrpc/` names no method.
pub(crate) const BAD_PATH: &str = "the path must be /xrpc/ followed by one method name";
/// 400: without one host the request might be meant for another server (RFC 9112 §3.2).
pub(crate) const ONE_HOST: &str = "exactly one Host header is required";
/// 400: the client left while it sent the body, or sent it broken.
pub(crate) const TRUNCATED_BODY: &str = "the request body was truncated";
/// 400: the body has another media type, or a charset that is not accepted.
pub(crate) const JSON_REQUIRED: &str = "Content-Type must be application/json";
/// 404: no page, file or method is at the path.
pub(crate) const NOTHING_HERE: &str = "nothing is at this path";
/// 405: no path serves this verb.
pub(crate) const METHOD_NOT_ALLOWED: &str = "method not allowed";
/// 400: a code differs from the one in the e-mail.
pub(crate) const INVALID_CODE: &str = "Token is invalid";
/// 400: a code from an e-mail has expired.
pub(crate) const EXPIRED_CODE: &str = "Token is expired";
/// 400: a token is not a JWT.
pub(crate) const MALFORMED_TOKEN: &str = "Malformed token";
/// 400: a session token is expired.
pub(crate) const EXPIRED_TOKEN: &str = "Token has expired";
/// 400: a session has ended.
pub(crate) const REVOKED_TOKEN: &str = "Token has been revoked";
/// 400: the account has moved to another host since the token was issued.
pub(crate) const OUTDATED_AUDIENCE: &str = "Token audience is out of date";
/// 400: the session may not call this method.
pub(crate) const BAD_TOKEN_SCOPE: &str = "Bad token scope";
/// 401: a sign-in failed. The text does not say which of the two is wrong.
pub(crate) const WRONG_PASSWORD: &str = "Invalid identifier or password";
/// 401: the password of a deletion is wrong.
pub(crate) const WRONG_DID_OR_PASSWORD: &str = "Invalid did or password";
/// 400: Genkan has no such account.
pub(crate) const ACCOUNT_NOT_FOUND: &str = "Account not found";
/// 400: another account has the handle.
pub(crate) const HANDLE_TAKEN: &str = "Handle already taken";
/// 400: no account has the handle.
pub(crate) const HANDLE_UNRESOLVED: &str = "Unable to resolve handle";
/// 400: another account has the e-mail address.
pub(crate) const EMAIL_TAKEN: &str = "This email address is already in use, please use a different email.";
/// 400: the e-mail address is malformed, or of a domain that is refused.
pub(crate) const EMAIL_UNSUPPORTED: &str =
    "This email address is not supported, please use a different email.";
/// 400: an invite code is unknown, disabled or used up.
pub(crate) const INVALID_INVITE: &str = "Provided invite code not available";
/// 503: too many password checks are waiting.
pub(crate) const TOO_MANY_SIGN_INS: &str = "too many sign-ins at once; try again in a moment";
/// 429: a rate limit is exceeded.
pub(crate) const TOO_MANY_REQUESTS: &str = "too many requests, try again later";
/// 500: a bug. The client learns nothing else.
pub(crate) const INTERNAL: &str = "internal server error";
