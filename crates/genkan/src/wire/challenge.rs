//! The `WWW-Authenticate` challenges of a 401 (RFC 9110 §11.6.1).

use genkan_protocol::oauth::jws::Algorithm;
use http::HeaderValue;

/// Asks for any bearer token, where Genkan answers itself.
pub(crate) const BEARER_OF_GENKAN: HeaderValue = HeaderValue::from_static("Bearer realm=\"genkan\"");

/// Asks for any bearer token, where a PDS would answer.
pub(crate) const BEARER: HeaderValue = HeaderValue::from_static("Bearer");

/// Asks for a token of either kind.
pub(crate) const EITHER: HeaderValue = HeaderValue::from_static("DPoP, Bearer");

/// Asks for another bearer token, because the one that came is not valid (RFC 6750 §3.1).
pub(crate) fn bearer(code: &str, description: &str) -> Option<HeaderValue> {
    let description = quotable(description);
    format!("Bearer error=\"{code}\", error_description=\"{description}\"").parse().ok()
}

/// Asks for another token or proof, because what came is not valid (RFC 9449 §7.1).
///
/// Returns `None` only if the code contains characters that a header cannot hold.
pub(crate) fn dpop(code: &str, description: &str) -> Option<HeaderValue> {
    // RFC 9449 §7.1: `algs` lists the signature algorithms that a client may use for its proofs.
    let algorithms: Vec<&str> = Algorithm::ALL.iter().map(|algorithm| algorithm.as_str()).collect();
    let (algorithms, description) = (algorithms.join(" "), quotable(description));
    format!("DPoP algs=\"{algorithms}\", error=\"{code}\", error_description=\"{description}\"").parse().ok()
}

/// Keeps the characters that RFC 6750 §3 allows in a description.
fn quotable(description: &str) -> String {
    // Characters outside the allowed set are dropped, so that no text can end the quoted string
    // early or start another header.
    description.chars().filter(|c| (' '..='~').contains(c) && !matches!(c, '"' | '\\')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_cannot_leave_its_quotes() {
        let nasty = "a \"b\"\\ c\r\nset-cookie: d ü";
        for challenge in [bearer("invalid_token", nasty), dpop("invalid_token", nasty)] {
            let challenge = challenge.unwrap();
            let challenge = challenge.to_str().unwrap();
            assert!(
                challenge.ends_with("error=\"invalid_token\", error_description=\"a b cset-cookie: d \""),
                "{challenge}"
            );
        }
    }
}
