//! The error envelope of XRPC: `{"error", "message"}`
//! (<https://atproto.com/specs/xrpc#error-responses>).

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt::Write as _;

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};

use super::{challenge, media_type, messages};

/// A refusal as a client sees it, with its cause for the log.
#[derive(Debug)]
pub(crate) struct XrpcError {
    pub(crate) status: StatusCode,
    pub(crate) name: Cow<'static, str>,
    pub(crate) message: Cow<'static, str>,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Logged where the answer is made, and never sent.
    cause: Option<Box<dyn StdError + Send + Sync>>,
}

pub(crate) type XrpcResult<T> = Result<T, XrpcError>;

impl XrpcError {
    pub(crate) fn new(
        status: StatusCode,
        name: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { status, name: name.into(), message: message.into(), headers: Vec::new(), cause: None }
    }

    /// 400 `InvalidRequest`.
    pub(crate) fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        bad_request("InvalidRequest", message)
    }

    /// 400 `InvalidRequest`: the method takes other verbs, and `Allow` names them.
    pub(crate) fn wrong_verb(allowed: &'static str) -> Self {
        Self::invalid(format!("Incorrect HTTP method, expected {allowed}"))
            .with(ALLOW, HeaderValue::from_static(allowed))
    }

    /// 405 `InvalidRequest`: the verb is served on no path.
    pub(crate) fn method_not_allowed(allowed: &'static str) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "InvalidRequest", messages::METHOD_NOT_ALLOWED)
            .with(ALLOW, HeaderValue::from_static(allowed))
    }

    /// 413 `PayloadTooLarge`.
    pub(crate) fn too_large(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "PayloadTooLarge", message)
    }

    /// 500: a bug. Only the log learns the cause.
    pub(crate) fn internal(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let mut error =
            Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError", messages::INTERNAL);
        error.cause = Some(cause.into());
        error
    }

    /// 503 `NotEnoughResources`: another try may succeed soon.
    pub(crate) fn unavailable(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "NotEnoughResources", message)
            .with(RETRY_AFTER, HeaderValue::from_static("5"))
    }

    /// 501 `MethodNotImplemented`, with a message that says who answers the method.
    pub(crate) fn not_here(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, "MethodNotImplemented", message)
    }

    pub(crate) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    pub(crate) fn because(mut self, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// Adds a `WWW-Authenticate` header, if there is a challenge.
    pub(crate) fn challenging(self, challenge: Option<HeaderValue>) -> Self {
        match challenge {
            Some(challenge) => self.with(WWW_AUTHENTICATE, challenge),
            None => self,
        }
    }

    pub(crate) fn header(&self, name: &HeaderName) -> Option<&HeaderValue> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    pub(crate) fn body(&self) -> Vec<u8> {
        genkan_protocol::xrpc_error::XrpcError::new(
            self.status.as_u16(),
            self.name.clone(),
            self.message.clone(),
        )
        .body()
    }
}

pub(crate) fn bad_request(name: &'static str, message: impl Into<Cow<'static, str>>) -> XrpcError {
    XrpcError::new(StatusCode::BAD_REQUEST, name, message)
}

/// 401 with the challenge that clients expect on every 401.
pub(crate) fn unauthorized(name: &'static str, message: impl Into<Cow<'static, str>>) -> XrpcError {
    XrpcError::new(StatusCode::UNAUTHORIZED, name, message)
        .with(WWW_AUTHENTICATE, challenge::BEARER_OF_GENKAN)
}

/// The error name of an answer, for the log and the metrics.
#[derive(Clone, Debug)]
pub(crate) struct ErrorName(pub(crate) Cow<'static, str>);

impl ErrorName {
    /// Returns the name as a label of a metric.
    ///
    /// The names that Genkan itself gives are constants. Any other name was chosen by a host or
    /// another server, and is counted as `other`: a label must not have values that outsiders choose.
    pub(crate) const fn label(&self) -> &'static str {
        match &self.0 {
            Cow::Borrowed(name) => name,
            Cow::Owned(_) => "other",
        }
    }
}

impl XrpcError {
    /// Builds the answer, and logs its cause once.
    pub(crate) fn answer(self) -> http::Response<Vec<u8>> {
        if let Some(cause) = &self.cause {
            let chain = chain(cause.as_ref());
            // A 500 is a bug that someone must fix. Other causes, such as a busy database, pass by
            // themselves.
            if self.status == StatusCode::INTERNAL_SERVER_ERROR {
                tracing::error!(cause = chain, "answered {} {}", self.status.as_u16(), self.name);
            } else {
                tracing::warn!(cause = chain, "answered {} {}", self.status.as_u16(), self.name);
            }
        }
        // An error is about this request only, and a cache must not give it to another.
        let mut response = http::Response::new(self.body());
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, media_type::JSON);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(GENKAN_ERROR, HeaderValue::from_static("gateway"));
        // Appended, so that one challenge does not replace another (RFC 9110 §11.6.1 allows
        // several).
        for (name, value) in self.headers {
            headers.append(name, value);
        }
        response.extensions_mut().insert(ErrorName(self.name));
        response
    }
}

impl IntoResponse for XrpcError {
    fn into_response(self) -> Response {
        self.answer().map(Into::into)
    }
}

/// Distinguishes Genkan's errors from those of a PDS behind it.
pub(crate) const GENKAN_ERROR: HeaderName = HeaderName::from_static("x-genkan-error");

/// A cause with all of its own causes, on one line.
fn chain(cause: &(dyn StdError + 'static)) -> String {
    let mut text = cause.to_string();
    let mut below = cause.source();
    while let Some(cause) = below {
        let _ = write!(text, ": {cause}");
        below = cause.source();
    }
    text
}

impl From<genkan_protocol::xrpc_error::XrpcError> for XrpcError {
    fn from(error: genkan_protocol::xrpc_error::XrpcError) -> Self {
        match StatusCode::from_u16(error.status) {
            // A status below 400 would turn an error into a success for the client.
            Ok(status) if status.is_client_error() || status.is_server_error() => {
                Self::new(status, error.name, error.message)
            }
            _ => Self::internal(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    async fn answer(error: XrpcError) -> (u16, String, Response) {
        let (head, body) = error.into_response().into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        (
            head.status.as_u16(),
            String::from_utf8(bytes.to_vec()).unwrap(),
            Response::from_parts(head, axum::body::Body::empty()),
        )
    }

    #[tokio::test]
    async fn a_cause_is_never_sent() {
        let (status, body, _) = answer(XrpcError::internal("password=hunter2")).await;
        assert_eq!(
            (status, body.as_str()),
            (500, r#"{"error":"InternalServerError","message":"internal server error"}"#)
        );
    }

    #[test]
    fn a_name_that_a_host_chose_is_no_label() {
        let label = |error: XrpcError| ErrorName(error.name).label();
        assert_eq!(label(bad_request("InvalidToken", "")), "InvalidToken");
        let hosts = genkan_protocol::xrpc_error::XrpcError::new(400, "Chosen".to_owned(), String::new());
        assert_eq!(label(XrpcError::from(hosts)), "other");
    }

    #[tokio::test]
    async fn each_answer_has_its_headers() {
        let (status, _, response) = answer(unauthorized("AuthMissing", "no token")).await;
        assert_eq!(status, 401);
        assert!(response.headers().contains_key(WWW_AUTHENTICATE));
        let (status, _, response) = answer(XrpcError::unavailable("try again")).await;
        assert_eq!((status, response.headers()[RETRY_AFTER].to_str().unwrap()), (503, "5"));
        let (status, _, response) = answer(XrpcError::wrong_verb("POST")).await;
        assert_eq!((status, response.headers()[ALLOW].to_str().unwrap()), (400, "POST"));
    }
}
