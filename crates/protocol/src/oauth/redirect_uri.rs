//! Where a client is answered (RFC 6749 §3.1.2, RFC 8252 §7, atproto OAuth, "Clients").

use url::{Host, Url};

use super::client_id::{ClientId, is_public_name};
use super::client_metadata::ApplicationType;

/// A redirect that a client declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedirectUri {
    text: Box<str>,
    kind: Kind,
}

/// The kinds of redirect.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// Compared letter by letter: to a web server, or to an app by its own scheme.
    Exact,
    /// To a program on the user's own machine, on whatever port it got.
    Loopback(Url),
}

/// Why a redirect is not allowed for a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(&'static str);

impl RedirectUri {
    /// Checks a redirect that a client declares.
    pub fn parse(text: &str, client: &ClientId, kind: ApplicationType) -> Result<Self, Error> {
        if text.len() > MAX_LENGTH {
            return Err(Error("is longer than 2048 characters"));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error("has spaces or letters beyond ASCII"));
        }
        let url = Url::parse(text).map_err(|_| Error("is not a URL"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Error("must not have credentials"));
        }
        if url.fragment().is_some() {
            return Err(Error("must not have a fragment"));
        }
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
            // Whoever may have a document there may be answered there.
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

    /// The redirect as it was declared.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether a request may name this one: letter by letter, but for the port of a loopback (RFC 8252 §7.3).
    pub fn matches(&self, requested: &str) -> bool {
        if *self.text == *requested {
            return true;
        }
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
    let reversed = client.host().rsplit('.').collect::<Vec<_>>().join(".");
    let rest = text.strip_prefix(reversed.as_str()).and_then(|rest| rest.strip_prefix(':'));
    match rest {
        None => Err(Error("must have the reversed host of client_id as its scheme")),
        Some(path) if path.starts_with('/') && !path.starts_with("//") => Ok(Kind::Exact),
        Some(_) => Err(Error("must have a single slash after its scheme")),
    }
}
