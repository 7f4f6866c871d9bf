//! Percent-encoding of queries and forms.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Escapes the value of a query or form: all characters but the unreserved ones (RFC 3986 §2.3).
pub(crate) fn escaped(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// Builds a query or form from names and values.
pub(crate) fn of_pairs(pairs: &[(&str, &str)]) -> String {
    let pairs: Vec<_> =
        pairs.iter().map(|(name, value)| format!("{}={}", escaped(name), escaped(value))).collect();
    pairs.join("&")
}

const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_escaped() {
        assert_eq!(escaped("a b&c=d/ä~"), "a%20b%26c%3Dd%2F%C3%A4~");
        assert_eq!(of_pairs(&[("scope", "atproto a:b"), ("x", "-._~+")]), "scope=atproto%20a%3Ab&x=-._~%2B");
    }
}
