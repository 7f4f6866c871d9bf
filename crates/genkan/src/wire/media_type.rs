//! Media types of bodies.

use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};

pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The media type that a body is said to have, without parameters. `None`: no type is given, or not
/// in ASCII.
pub(crate) fn of(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or_default().trim())
}

/// Whether a body is said to be of this type. Types are compared without regard to case.
pub(crate) fn is(headers: &HeaderMap, media_type: &str) -> bool {
    of(headers).is_some_and(|given| given.eq_ignore_ascii_case(media_type))
}
