//! Error responses of XRPC (atproto HTTP API (XRPC), "Error Responses").

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

/// An error response: a status, a name for programs, and a message for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XrpcError {
    /// The HTTP status, 400 to 599. Not part of the body.
    pub status: u16,
    /// The name that programs compare, such as `InvalidRequest` or `ExpiredToken`.
    pub name: Cow<'static, str>,
    /// The message for people; empty when the server sent none.
    pub message: Cow<'static, str>,
}

impl XrpcError {
    /// An error of the given status, name and message.
    pub fn new(
        status: u16,
        name: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { status, name: name.into(), message: message.into() }
    }

    /// The JSON body, `{"error":…,"message":…}`.
    pub fn body(&self) -> Vec<u8> {
        let body =
            Body { error: Some(Cow::Borrowed(&self.name)), message: Some(Cow::Borrowed(&self.message)) };
        serde_json::to_vec(&body).expect("two strings always have a JSON form")
    }

    /// Reads another server's response. `None`: the body is not a JSON object with a name in
    /// `error`.
    pub fn from_body(status: u16, body: &[u8]) -> Option<Self> {
        let body: Body<'_> = serde_json::from_slice(body).ok()?;
        let message = body.message.unwrap_or_default().into_owned();
        Some(Self::new(status, body.error?.into_owned(), message))
    }
}

impl fmt::Display for XrpcError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}: {}", self.status, self.name, self.message)
    }
}

impl std::error::Error for XrpcError {}

#[derive(Serialize, Deserialize)]
struct Body<'a> {
    error: Option<Cow<'a, str>>,
    #[serde(default)]
    message: Option<Cow<'a, str>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_reads_back() {
        let error = XrpcError::new(400, "InvalidRequest", "say \"please\"\n");
        assert_eq!(error.body(), br#"{"error":"InvalidRequest","message":"say \"please\"\n"}"#);
        assert_eq!(XrpcError::from_body(400, &error.body()), Some(error));
    }

    #[test]
    fn other_bodies_are_not_errors() {
        for body in ["", "null", "[]", "{}", r#"{"error":5}"#, r#"{"message":"x"}"#, "<html>"] {
            assert_eq!(XrpcError::from_body(502, body.as_bytes()), None, "{body}");
        }
        let bare = XrpcError::from_body(501, br#"{"error":"MethodNotImplemented","more":1}"#).unwrap();
        assert_eq!(bare, XrpcError::new(501, "MethodNotImplemented", ""));
    }
}
