//! Reading the body of an error, where its name decides what happens to the request.

use http::{HeaderMap, header};

/// Whether an error's body can be read here.
pub(super) fn is_small_json(headers: &HeaderMap) -> bool {
    let is_json = headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().to_ascii_lowercase().starts_with(b"application/json"));
    let length =
        headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    // A compressed body would have to be decompressed first, and a long one kept in memory. Neither
    // is an error that a host sends.
    is_json
        && length.is_none_or(|length| length <= MAX_PEEK)
        && !headers.contains_key(header::CONTENT_ENCODING)
}

/// Whether an XRPC error's body has this name.
pub(super) fn names_error(body: &[u8], name: &str) -> bool {
    #[derive(serde::Deserialize)]
    struct ErrorName<'a> {
        #[serde(borrow)]
        error: std::borrow::Cow<'a, str>,
    }
    serde_json::from_slice::<ErrorName<'_>>(body).is_ok_and(|named| named.error == name)
}

/// The longest error body that is read, in bytes.
pub(super) const MAX_PEEK: usize = 4096;
