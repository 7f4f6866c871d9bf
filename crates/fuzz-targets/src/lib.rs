//! Fuzz targets as plain functions, one for each parser of untrusted bytes.
//!
//! The binaries in `fuzz/` hand each function to `libFuzzer`, which needs a nightly compiler. The
//! program of this crate replays the committed corpus and mutations of it on stable Rust; see
//! [`replay`].
//!
//! A target panics when a parser panics or breaks its promise: that a value prints what it was
//! parsed from, that two parsers of one grammar agree, that a forged signature is refused.

pub mod documents;
pub mod http;
pub mod identifiers;
pub mod oauth;
pub mod replay;
pub mod routing;
pub mod tokens;

/// One fuzz target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The name of its binary in `fuzz/` and of its folder in `fuzz/corpus/`.
    pub name: &'static str,
    /// The check. Panics when a promise is broken.
    pub run: fn(&[u8]),
}

/// All targets. A new one also needs a binary in `fuzz/` and seeds in `fuzz/corpus/`, as a test
/// checks.
pub const TARGETS: &[Target] = &[
    Target { name: "answer_chunks", run: http::answer_chunks },
    Target { name: "answer_head", run: http::answer_head },
    Target { name: "at_identifier", run: identifiers::at_identifier },
    Target { name: "client_id", run: oauth::client_id },
    Target { name: "client_metadata", run: oauth::client_metadata },
    Target { name: "did", run: identifiers::did },
    Target { name: "did_document", run: documents::did_document },
    Target { name: "did_key", run: identifiers::did_key },
    Target { name: "dpop_proof", run: tokens::dpop_proof },
    Target { name: "handle", run: identifiers::handle },
    Target { name: "jwk", run: tokens::jwk },
    Target { name: "jwt", run: tokens::jwt },
    Target { name: "nsid", run: identifiers::nsid },
    Target { name: "oauth_form", run: oauth::form },
    Target { name: "origin", run: identifiers::origin },
    Target { name: "permission_set", run: documents::permission_set },
    Target { name: "plc_operation", run: documents::plc_operation },
    Target { name: "repo_proof", run: documents::repo_proof },
    Target { name: "request_framing", run: http::request_framing },
    Target { name: "routing_target", run: routing::target },
    Target { name: "scope", run: oauth::scope },
    Target { name: "service_auth", run: tokens::service_auth },
];

/// Returns the bytes as text, for parsers that take text.
fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}
