//! Redirect URIs of clients (RFC 6749 §3.1.2, RFC 8252 §7; atproto OAuth, "Clients").
//!
//! ```
//! use genkan_protocol::oauth::client_id::ClientId;
//! use genkan_protocol::oauth::client_metadata::ApplicationType;
//! use genkan_protocol::oauth::redirect_uri::RedirectUri;
//!
//! let client = ClientId::parse("https://app.example.com/client-metadata.json", &[]).unwrap();
//! let loopback = RedirectUri::parse("http://127.0.0.1/callback", &client, ApplicationType::Native)?;
//! assert!(loopback.matches("http://127.0.0.1:49152/callback"));
//! assert!(!loopback.matches("http://127.0.0.1:49152/elsewhere"));
//! # Ok::<(), genkan_protocol::oauth::redirect_uri::Error>(())
//! ```

use url::{Host, Url};

use super::client_id::{ClientId, is_public_name};
use super::client_metadata::ApplicationType;

/// A redirect URI that a client declared, 2048 bytes of visible ASCII at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedirectUri {
    text: Box<str>,
    kind: Kind,
}

/// How a requested redirect URI is compared with the declared one.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// Byte by byte: to a web server, or to an app by its own scheme (RFC 8252 §7.1).
    Exact,
    /// Without the port: to a program on the user's machine, which gets any free port (RFC 8252
    /// §7.3).
    Loopback(Url),
}

/// Why a redirect URI is not allowed for a client, as the end of a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(&'static str);

impl RedirectUri {
    /// Reads a redirect URI that a client declares, and checks it against the client's own id and
    /// kind.
    pub fn parse(text: &str, client: &ClientId, kind: ApplicationType) -> Result<Self, Error> {
        if text.len() > MAX_LENGTH {
            return Err(Error("is longer than 2048 characters"));
        }
        // The URI goes into a `Location` header, and pages show it: no character may hide or change
        // its meaning.
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error("has spaces or letters beyond ASCII"));
        }
        let url = Url::parse(text).map_err(|_| Error("is not a URL"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Error("must not have credentials"));
        }
        // RFC 6749 §3.1.2 forbids a fragment: the response mode `fragment` adds its own.
        if url.fragment().is_some() {
            return Err(Error("must not have a fragment"));
        }
        // No wildcard is ever expanded, but a client that writes one expects it (RFC 9700 §4.1.3).
        if url.host_str().is_some_and(|host| host.contains('*')) {
            return Err(Error("must not have a wildcard"));
        }
        let native = kind == ApplicationType::Native;
        let own_origin = url.origin() == client.url().origin() && !client.is_development();
        let kind = match url.scheme() {
            _ if client.is_development() => loopback(url)?,
            "https" if native && !own_origin => {
                return Err(Error("of a native client must have the origin of client_id"));
            }
            // The client's own origin is allowed without further checks, internal ones included:
            // the client already serves its document there.
            "https" | "http" if own_origin => Kind::Exact,
            "https" => match url.host() {
                Some(Host::Domain(host)) if !is_public_name(host) => {
                    return Err(Error("must have a public host name"));
                }
                _ => Kind::Exact,
            },
            "http" if !native => return Err(Error("with http: is for native clients only")),
            "http" => loopback(url)?,
            _ if !native => return Err(Error("with an own scheme is for native clients only")),
            scheme => private(text, scheme, client)?,
        };
        Ok(Self { text: text.into(), kind })
    }

    /// The declared text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether a requested redirect URI equals this one byte by byte. On a loopback address the
    /// port may differ, unless the client declared one (RFC 8252 §7.3).
    pub fn matches(&self, requested: &str) -> bool {
        if *self.text == *requested {
            return true;
        }
        // Everything but the port is compared after parsing, which accepts no more than `parse`
        // does.
        let Kind::Loopback(declared) = &self.kind else { return false };
        if requested.len() > MAX_LENGTH || !requested.bytes().all(|byte| byte.is_ascii_graphic()) {
            return false;
        }
        let Ok(asked) = Url::parse(requested) else { return false };
        asked.scheme() == declared.scheme()
            && asked.host() == declared.host()
            && asked.path() == declared.path()
            && asked.query() == declared.query()
            && asked.username().is_empty()
            && asked.password().is_none()
            && asked.fragment().is_none()
            && (declared.port().is_none() || asked.port() == declared.port())
    }
}

const MAX_LENGTH: usize = 2048;

fn loopback(url: Url) -> Result<Kind, Error> {
    let is_loopback = match url.host() {
        Some(Host::Ipv4(address)) => address == std::net::Ipv4Addr::LOCALHOST,
        Some(Host::Ipv6(address)) => address == std::net::Ipv6Addr::LOCALHOST,
        _ => false,
    };
    if url.scheme() == "http" && is_loopback {
        Ok(Kind::Loopback(url))
    } else {
        Err(Error("with http: must go to 127.0.0.1 or [::1]"))
    }
}

fn private(text: &str, scheme: &str, client: &ClientId) -> Result<Kind, Error> {
    if !scheme.contains('.') {
        return Err(Error("must be https:, a loopback, or have a scheme with a dot"));
    }
    // `com.example.app:/callback` for `app.example.com`: owning the domain proves owning the
    // scheme.
    let reversed = client.host().rsplit('.').collect::<Vec<_>>().join(".");
    let rest = text.strip_prefix(reversed.as_str()).and_then(|rest| rest.strip_prefix(':'));
    match rest {
        None => Err(Error("must have the reversed host of client_id as its scheme")),
        Some(path) if path.starts_with('/') && !path.starts_with("//") => Ok(Kind::Exact),
        Some(_) => Err(Error("must have a single slash after its scheme")),
    }
}
