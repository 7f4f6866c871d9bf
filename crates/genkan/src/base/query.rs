//! Text in queries and forms.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// For a query's or form's value: all but RFC 3986's unreserved characters.
pub(crate) fn escaped(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// A query or form of these pairs.
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
