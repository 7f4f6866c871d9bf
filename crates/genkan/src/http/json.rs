//! The input of XRPC calls: a JSON body, or parameters in the query.

use std::io::Read as _;

use axum::extract::{FromRequest, FromRequestParts, Request};
use flate2::bufread::GzDecoder;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::wire::error::XrpcResult;
use crate::wire::{XrpcError, media_type, messages};

/// The JSON body of a procedure, checked for its media type, coding, size, depth and text.
#[derive(Debug)]
pub(crate) struct XrpcInput<T>(pub(crate) T);

/// The most bytes of a body, as sent and decompressed. The router puts it into each request's
/// extensions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyLimits {
    pub(crate) sent: usize,
    pub(crate) unpacked: usize,
}

impl Default for BodyLimits {
    fn default() -> Self {
        Self { sent: 150_000, unpacked: 1 << 20 }
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for XrpcInput<T> {
    type Rejection = XrpcError;

    async fn from_request(request: Request, _: &S) -> XrpcResult<Self> {
        let limits = request.extensions().get::<BodyLimits>().copied().unwrap_or_default();
        check_type(request.headers())?;
        let packed = is_packed(request.headers())?;
        // The bound on sent bytes applies to the compressed form. `unpack` has its own.
        let body = read(request, limits.sent).await?;
        let body = if packed { unpack(&body, limits.unpacked)? } else { body };
        parse(&body).map(Self)
    }
}

fn check_type(headers: &HeaderMap) -> XrpcResult<()> {
    if media_type::is(headers, "application/json") {
        Ok(())
    } else {
        Err(XrpcError::invalid(messages::JSON_REQUIRED))
    }
}

/// Whether the body is gzip. Other codings are refused, and several of them too.
fn is_packed(headers: &HeaderMap) -> XrpcResult<bool> {
    let mut codings = headers.get_all(CONTENT_ENCODING).iter();
    let coding = codings.next().map_or(Ok("identity"), |coding| coding.to_str()).unwrap_or_default();
    let packed = match coding.trim().to_ascii_lowercase().as_str() {
        "identity" | "" => Some(false),
        "gzip" | "x-gzip" => Some(true),
        _ => None,
    };
    // A second `Content-Encoding` line means two codings in a row, and only one is undone here.
    packed.filter(|_| codings.next().is_none()).ok_or_else(|| {
        XrpcError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UnsupportedMediaType",
            "Content-Encoding must be gzip or identity",
        )
    })
}

async fn read(request: Request, limit: usize) -> XrpcResult<Vec<u8>> {
    let too_large = || XrpcError::too_large(format!("the request body must not exceed {limit} bytes"));
    let announced =
        request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    // Refused before a byte is read. A body without this header is counted while it arrives.
    if announced.is_some_and(|length| length > limit as u64) {
        return Err(too_large());
    }
    match Limited::new(request.into_body(), limit).collect().await {
        Ok(body) => Ok(body.to_bytes().into()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
        Err(_) => Err(XrpcError::invalid(messages::TRUNCATED_BODY)),
    }
}

fn unpack(packed: &[u8], limit: usize) -> XrpcResult<Vec<u8>> {
    let wrong = |_| XrpcError::invalid("the request body is not valid gzip");
    let mut decoder = GzDecoder::new(packed);
    let mut body = Vec::new();
    // One byte more than allowed tells a body that is too long from one that just fits, and bounds
    // what a gzip bomb can make this allocate.
    decoder.by_ref().take(limit as u64 + 1).read_to_end(&mut body).map_err(wrong)?;
    if body.len() > limit {
        return Err(XrpcError::too_large(format!(
            "the decompressed request body must not exceed {limit} bytes"
        )));
    }
    // Bytes after the end could be a second gzip member, which another reader would add to the
    // body.
    if !decoder.into_inner().is_empty() {
        return Err(XrpcError::invalid("trailing data after the gzip stream"));
    }
    Ok(body)
}

/// Reads any JSON first, so that members which the input type does not know are checked like the
/// others.
fn parse<T: DeserializeOwned>(body: &[u8]) -> XrpcResult<T> {
    if body.is_empty() {
        return Err(XrpcError::invalid("the request body is empty; JSON is required"));
    }
    let text =
        std::str::from_utf8(body).map_err(|_| XrpcError::invalid("the request body is not valid UTF-8"))?;
    let value: Value = serde_json::from_str(text).map_err(|error| {
        XrpcError::invalid(format!(
            "the request body is not valid JSON (line {}, column {})",
            error.line(),
            error.column()
        ))
    })?;
    // NUL cannot be stored in PostgreSQL, and deep values cost stack wherever they are walked.
    check_value(&value, 1)?;
    serde_json::from_value(value).map_err(|error| XrpcError::invalid(input_message(&error.to_string())))
}

/// The deepest nesting of objects and arrays, below the limit of the JSON parser itself.
const DEEPEST: usize = 64;

fn check_value(value: &Value, depth: usize) -> XrpcResult<()> {
    // Only containers add depth. The check is before the descent, so the recursion is bounded.
    if depth > DEEPEST && matches!(value, Value::Array(_) | Value::Object(_)) {
        return Err(XrpcError::invalid(format!(
            "the request body is nested more than {DEEPEST} levels deep"
        )));
    }
    match value {
        Value::String(text) => check_text(text),
        Value::Array(items) => items.iter().try_for_each(|item| check_value(item, depth + 1)),
        Value::Object(members) => members.iter().try_for_each(|(name, value)| {
            check_text(name)?;
            check_value(value, depth + 1)
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

fn check_text(text: &str) -> XrpcResult<()> {
    if text.contains('\0') {
        Err(XrpcError::invalid("strings must not contain a NUL character"))
    } else {
        Ok(())
    }
}

/// The parser's message, cut short: it repeats what the client sent, which may be long.
fn input_message(words: &str) -> String {
    let mut short: String = words.chars().take(200).collect();
    // The lengths are in bytes. They differ only if characters were left out.
    if short.len() < words.len() {
        short.push('…');
    }
    format!("input: {short}")
}

/// The parameters of a query. A list is a parameter that is repeated.
#[derive(Debug)]
pub(crate) struct XrpcQuery<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for XrpcQuery<T> {
    type Rejection = XrpcError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> XrpcResult<Self> {
        let query = parts.uri.query().unwrap_or_default();
        check_query(query)?;
        serde_html_form::from_str(query)
            .map(Self)
            .map_err(|error| XrpcError::invalid(input_message(&format!("parameters: {error}"))))
    }
}

/// Refuses a stray `%`, bad UTF-8 and NUL, all of which the form decoder would accept or replace in
/// silence.
fn check_query(query: &str) -> XrpcResult<()> {
    let mut decoded = Vec::with_capacity(query.len());
    let mut bytes = query.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let mut digit = || bytes.next().and_then(|digit| char::from(digit).to_digit(16));
            match (digit(), digit()) {
                (Some(high), Some(low)) => decoded.extend(u8::try_from(high * 16 + low)),
                _ => return Err(XrpcError::invalid("parameters: invalid percent-encoding")),
            }
        } else {
            decoded.push(byte);
        }
    }
    let text =
        std::str::from_utf8(&decoded).map_err(|_| XrpcError::invalid("parameters: not valid UTF-8"))?;
    check_text(text)
}
