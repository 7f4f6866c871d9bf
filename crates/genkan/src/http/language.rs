//! The language of people who ask, as their program says.

use http::HeaderMap;
use http::header::ACCEPT_LANGUAGE;

use crate::base::Language;

/// By `Accept-Language`; English where it names none of ours.
pub(crate) fn language(headers: &HeaderMap) -> Language {
    let wanted = headers.get(ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
    wanted.and_then(Language::accepted).unwrap_or_default()
}
