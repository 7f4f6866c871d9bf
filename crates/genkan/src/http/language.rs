//! The language that a person's program asks for.

use http::HeaderMap;
use http::header::ACCEPT_LANGUAGE;

use crate::base::Language;

/// The language by `Accept-Language` (RFC 9110 §12.5.4), or English if Genkan has none of those.
pub(crate) fn language(headers: &HeaderMap) -> Language {
    let wanted = headers.get(ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
    wanted.and_then(Language::accepted).unwrap_or_default()
}
