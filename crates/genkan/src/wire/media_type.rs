//! Media types of bodies.

use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};

pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Returns the media type that a body claims, without parameters. Returns `None` if there is no
/// type, or one outside ASCII.
pub(crate) fn of(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or_default().trim())
}

/// Whether a body claims this type. Types are compared without regard to case.
pub(crate) fn is(headers: &HeaderMap, media_type: &str) -> bool {
    of(headers).is_some_and(|given| given.eq_ignore_ascii_case(media_type))
}
