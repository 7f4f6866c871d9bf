//! The log line of a request. Its form is a contract with operators' tools: see
//! `docs/operating.md`.

use std::net::IpAddr;
use std::time::Duration;

/// What the log says about an answered request. Never a query string, a header or a body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestLine<'a> {
    pub(crate) id: &'a str,
    pub(crate) method: &'a str,
    /// The path of the request. It is logged only if it has a known form: see [`safe_path`].
    pub(crate) path: &'a str,
    pub(crate) status: u16,
    /// Time until the head of the answer.
    pub(crate) took: Duration,
    pub(crate) client: Option<IpAddr>,
    /// The host that the request was forwarded to.
    pub(crate) host: Option<&'a str>,
    pub(crate) account: Option<&'a str>,
    /// The XRPC error name, if Genkan refused the request.
    pub(crate) error: Option<&'a str>,
}

impl RequestLine<'_> {
    pub(crate) fn write(&self) {
        let path = safe_path(self.path);
        let duration_ms = u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX);
        tracing::info!(
            target: "genkan::request",
            { request.id = self.id,
            http.method = safe_method(self.method),
            http.path = path,
            http.status = self.status,
            duration_ms,
            client.address = self.client.map(tracing::field::display),
            host.id = self.host,
            account.did = self.account,
            error = self.error },
            "{} {path} answered {} in {duration_ms} ms",
            safe_method(self.method),
            self.status,
        );
    }
}

/// Returns the path if it has a known form, in which no secret can be.
fn safe_path(path: &str) -> &str {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'/');
    let known = path == "/"
        || ["/xrpc/", "/.well-known/", "/oauth/"].iter().any(|start| path.starts_with(start))
        || matches!(path, "/tls-check" | "/robots.txt" | "/livez" | "/readyz" | "/metrics");
    if known && path.len() <= 128 && path.bytes().all(plain) { path } else { "(other)" }
}

/// Returns the method if it is a known one: a client can send any word.
fn safe_method(method: &str) -> &str {
    match method {
        "GET" | "HEAD" | "POST" | "PUT" | "DELETE" | "OPTIONS" | "PATCH" | "CONNECT" | "TRACE" => method,
        _ => "(other)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_paths_are_not_logged() {
        for path in ["/", "/xrpc/com.atproto.server.getSession", "/.well-known/atproto-did", "/livez"] {
            assert_eq!(safe_path(path), path);
        }
        let long = format!("/xrpc/{}", "a".repeat(200));
        for path in ["/me@example.com", "/xrpc/a%20b", "/xrpc/a\nb", "/secret", &long] {
            assert_eq!(safe_path(path), "(other)", "{path}");
        }
        assert_eq!(safe_method("BREW"), "(other)");
    }
}
