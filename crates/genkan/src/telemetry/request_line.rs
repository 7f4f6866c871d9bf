//! The line per request. Its form is a contract with operators' tools: `docs/operating.md`.

use std::net::IpAddr;
use std::time::Duration;

/// What is told about one answered request. Never a query string, a header or a body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestLine<'a> {
    pub(crate) id: &'a str,
    pub(crate) method: &'a str,
    /// The path, told only where it is one of Genkan's own shapes; see [`told_path`].
    pub(crate) path: &'a str,
    pub(crate) status: u16,
    /// Until the head of the answer.
    pub(crate) took: Duration,
    pub(crate) client: Option<IpAddr>,
    /// The host that the request was forwarded to.
    pub(crate) host: Option<&'a str>,
    pub(crate) account: Option<&'a str>,
    /// The XRPC name of a refusal of ours.
    pub(crate) error: Option<&'a str>,
}

impl RequestLine<'_> {
    pub(crate) fn write(&self) {
        let path = told_path(self.path);
        let duration_ms = u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX);
        tracing::info!(
            target: "genkan::request",
            { request.id = self.id,
            http.method = told_method(self.method),
            http.path = path,
            http.status = self.status,
            duration_ms,
            client.address = self.client.map(tracing::field::display),
            host.id = self.host,
            account.did = self.account,
            error = self.error },
            "{} {path} answered {} in {duration_ms} ms",
            told_method(self.method),
            self.status,
        );
    }
}

/// Paths are told as they came only where no secret can be in them.
fn told_path(path: &str) -> &str {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'/');
    let known = path == "/"
        || ["/xrpc/", "/.well-known/", "/oauth/"].iter().any(|start| path.starts_with(start))
        || matches!(path, "/tls-check" | "/robots.txt" | "/livez" | "/readyz" | "/metrics");
    if known && path.len() <= 128 && path.bytes().all(plain) { path } else { "(other)" }
}

/// A method is a stranger's word too.
fn told_method(method: &str) -> &str {
    match method {
        "GET" | "HEAD" | "POST" | "PUT" | "DELETE" | "OPTIONS" | "PATCH" | "CONNECT" | "TRACE" => method,
        _ => "(other)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_paths_are_not_told() {
        for path in ["/", "/xrpc/com.atproto.server.getSession", "/.well-known/atproto-did", "/livez"] {
            assert_eq!(told_path(path), path);
        }
        let long = format!("/xrpc/{}", "a".repeat(200));
        for path in ["/me@example.com", "/xrpc/a%20b", "/xrpc/a\nb", "/secret", &long] {
            assert_eq!(told_path(path), "(other)", "{path}");
        }
        assert_eq!(told_method("BREW"), "(other)");
    }
}
