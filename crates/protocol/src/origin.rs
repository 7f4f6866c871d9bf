//! Web origins: scheme, host and port, and nothing more (RFC 6454).

use std::fmt;
use std::str::FromStr;

use http::uri::{Authority, Scheme, Uri};

/// A web origin in canonical form: `https://host[:port]` or `http://host[:port]`.
///
/// The host is in lower case, the scheme's default port is left out, and there is no path, query or
/// user information (RFC 6454 §6.2). Two origins are equal exactly when their texts are.
///
/// ```
/// use genkan_protocol::origin::{Origin, OriginError};
///
/// let origin: Origin = "https://PDS.example.com:443".parse()?;
/// assert_eq!(origin.as_str(), "https://pds.example.com");
/// assert_eq!(origin.port(), 443);
/// assert_eq!("https://pds.example.com/".parse::<Origin>(), Err(OriginError::NotBare));
/// # Ok::<(), OriginError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    text: Box<str>,
    authority: Authority,
    https: bool,
}

impl Origin {
    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the scheme is `https`; otherwise it is `http`.
    pub const fn is_https(&self) -> bool {
        self.https
    }

    /// The host without port; an IPv6 address keeps its brackets.
    pub fn host(&self) -> &str {
        self.authority.host()
    }

    /// The port, the scheme's default included.
    pub fn port(&self) -> u16 {
        self.authority.port_u16().unwrap_or(if self.https { 443 } else { 80 })
    }

    /// The host and, unless it is the scheme's default, the port: the value of a `Host` header (RFC
    /// 9110 §7.2).
    pub const fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Whether another origin leads to the server at this one. Under a public name there is one
    /// server, whatever the port and scheme. On loopback the port tells servers apart.
    pub fn is_same_server(&self, other: &Self) -> bool {
        self == other || (!self.is_loopback() && self.host() == other.host())
    }

    /// Whether the host is `localhost` or a loopback address.
    pub fn is_loopback(&self) -> bool {
        let host = self.host().trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

/// Why a text is not an origin, in words for an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    /// It does not parse as a URL, or its host or port is missing or out of range.
    #[error("is not a URL")]
    NotAUrl,
    /// Another scheme, or no scheme.
    #[error("must begin with https:// or http://")]
    Scheme,
    /// A user name or password (RFC 3986 §3.2.1).
    #[error("must not contain a user name or password")]
    UserInformation,
    /// Something follows the host and port.
    #[error("must end after the host and port: no path, query or slash")]
    NotBare,
}

impl FromStr for Origin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        let uri: Uri = text.parse().map_err(|_| OriginError::NotAUrl)?;
        let https = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            _ => return Err(OriginError::Scheme),
        };
        let authority = uri.authority().ok_or(OriginError::NotAUrl)?;
        // `Authority` keeps user information and has no accessor for it.
        if authority.as_str().contains('@') {
            return Err(OriginError::UserInformation);
        }
        // `Uri` parses `https://host` and `https://host/` to the same value; only the text tells.
        let bare = text.get(if https { 8 } else { 7 }..).ok_or(OriginError::NotAUrl)?;
        if bare.len() != authority.as_str().len() {
            return Err(OriginError::NotBare);
        }
        // An authority longer than its host has a port; without one it was no number up to 65535.
        let host = authority.host().to_ascii_lowercase();
        if host.is_empty()
            || (authority.as_str().len() > authority.host().len() && authority.port_u16().is_none())
        {
            return Err(OriginError::NotAUrl);
        }
        // A default port is left out, so that equal origins have equal texts (RFC 6454 §6.2).
        let default_port = if https { 443 } else { 80 };
        let canonical = match authority.port_u16() {
            Some(port) if port != default_port => format!("{host}:{port}"),
            _ => host,
        };
        let authority: Authority = canonical.parse().map_err(|_| OriginError::NotAUrl)?;
        let scheme = if https { "https" } else { "http" };
        Ok(Self { text: format!("{scheme}://{authority}").into(), authority, https })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_name_is_one_server_and_loopback_is_one_for_each_port() {
        let origin = |text: &str| text.parse::<Origin>().unwrap();
        for (one, other, same) in [
            ("https://a.example", "https://a.example", true),
            ("https://a.example", "https://a.example:8443", true),
            ("https://a.example", "http://a.example", true),
            ("https://a.example", "https://b.example", false),
            ("http://localhost:1", "http://localhost:1", true),
            ("http://localhost:1", "http://localhost:2", false),
            ("http://127.0.0.1:1", "http://127.0.0.1:2", false),
        ] {
            assert_eq!(origin(one).is_same_server(&origin(other)), same, "{one} {other}");
        }
    }

    #[test]
    fn takes_bare_origins_in_canonical_form() {
        for (given, canonical) in [
            ("https://Example.com", "https://example.com"),
            ("https://example.com:443", "https://example.com"),
            ("http://localhost:2583", "http://localhost:2583"),
            ("http://127.0.0.1:80", "http://127.0.0.1"),
            ("http://[::1]:9", "http://[::1]:9"),
        ] {
            assert_eq!(given.parse::<Origin>().unwrap().as_str(), canonical, "{given}");
        }
    }

    #[test]
    fn refuses_what_is_more_than_an_origin() {
        for (given, why) in [
            ("https://example.com/", OriginError::NotBare),
            ("https://example.com/x", OriginError::NotBare),
            ("https://example.com?x", OriginError::NotBare),
            ("https://a:b@example.com", OriginError::UserInformation),
            ("ftp://example.com", OriginError::Scheme),
            ("example.com", OriginError::Scheme),
            ("https://", OriginError::NotAUrl),
            ("https://example.com:99999", OriginError::NotAUrl),
        ] {
            assert_eq!(given.parse::<Origin>(), Err(why), "{given}");
        }
    }

    #[test]
    fn knows_loopback() {
        let is = |text: &str| text.parse::<Origin>().unwrap().is_loopback();
        assert!(is("http://localhost:1") && is("http://127.0.0.2:1") && is("http://[::1]:1"));
        assert!(!is("https://localhost.example.com") && !is("http://10.0.0.1"));
    }
}
