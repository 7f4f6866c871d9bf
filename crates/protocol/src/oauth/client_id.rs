//! Client ids: the URL of a client's metadata document, or `http://localhost` for a client in
//! development (draft-ietf-oauth-client-id-metadata-document §3; atproto OAuth, "Clients").
//!
//! ```
//! use genkan_protocol::oauth::client_id::ClientId;
//!
//! let client = ClientId::parse("https://app.example.com/client-metadata.json", &[])?;
//! assert_eq!(client.host(), "app.example.com");
//! let development = ClientId::parse("http://localhost?scope=atproto%20transition:generic", &[])?;
//! assert_eq!(development.development().unwrap()?.scope, "atproto transition:generic");
//! assert_eq!(
//!     ClientId::parse("http://app.example.com/client", &[]).unwrap_err().to_string(),
//!     "client_id must be an https: URL",
//! );
//! # Ok::<(), genkan_protocol::oauth::client_id::Error>(())
//! ```

use std::fmt;

use url::{Host, Url, form_urlencoded};

/// A valid client id, 2048 bytes at most.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ClientId {
    text: Box<str>,
    url: Url,
    development: bool,
}

/// Why a text is not a client id, as a sentence that begins with `client_id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("client_id {0}")]
pub struct Error(&'static str);

/// The metadata that a client in development puts into its id (atproto OAuth, "Localhost Client
/// Development").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Development {
    /// Its redirect URIs, unchecked; both loopback addresses if it names none.
    pub redirect_uris: Vec<String>,
    /// The scopes it may request, separated by spaces; `atproto` if it names none.
    pub scope: String,
}

impl ClientId {
    /// Reads a client id. `listed_origins` (`scheme://host[:port]`) are the internal origins that
    /// the operator trusts: for them plain `http:`, ports, and hosts without a public name are
    /// allowed.
    pub fn parse(text: &str, listed_origins: &[String]) -> Result<Self, Error> {
        if text.len() > MAX_LENGTH {
            return Err(Error("is longer than 2048 characters"));
        }
        let url = Url::parse(text).map_err(|_| Error("is not a URL"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Error("must not have credentials"));
        }
        // A fragment is never sent to a server (RFC 9110 §7.1), so ids that differ only in it would
        // lead to one document.
        if url.fragment().is_some() {
            return Err(Error("must not have a fragment"));
        }
        // A listed `http://localhost` is an internal client, not one in development.
        let listed = listed_origins.contains(&url.origin().ascii_serialization());
        let development = !listed && text.starts_with(DEVELOPMENT);
        if development {
            check_development(text)?;
        } else {
            check_url(text, &url, listed)?;
        }
        Ok(Self { text: text.into(), url, development })
    }

    /// The id. Two ids are equal when their bytes are.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The id as a URL: the address of the metadata document, unless the client is in development.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The host, for display.
    pub fn host(&self) -> &str {
        self.url.host_str().unwrap_or_default()
    }

    /// Whether this is a client in development, which has no document.
    pub fn is_development(&self) -> bool {
        self.development
    }

    /// The metadata in the id of a client in development. `None` for any other client.
    pub fn development(&self) -> Option<Result<Development, Error>> {
        self.development.then(|| read_development(&self.url))
    }
}

/// The longest client id that servers accept, in bytes.
pub const MAX_LENGTH: usize = 2048;
const DEVELOPMENT: &str = "http://localhost";

/// Top-level domains that do not exist on the public internet (RFC 6761 §6, RFC 6762 §3).
const LOCAL: [&str; 5] = ["test", "local", "localhost", "invalid", "example"];

/// Whether a host name can exist on the public internet, judged by its form alone.
pub(super) fn is_public_name(host: &str) -> bool {
    match host.rsplit_once('.') {
        // An empty last label is the trailing dot of an absolute name: a second spelling of one
        // host.
        Some((_, last)) => !last.is_empty() && !LOCAL.contains(&last),
        None => false,
    }
}

fn check_url(text: &str, url: &Url, listed: bool) -> Result<(), Error> {
    if !listed {
        if url.scheme() != "https" {
            return Err(Error("must be an https: URL"));
        }
        if url.port().is_some() {
            return Err(Error("must not have a port"));
        }
        match url.host() {
            Some(Host::Domain(host)) if is_public_name(host) => {}
            Some(Host::Domain(_)) => return Err(Error("must have a public host name")),
            _ => return Err(Error("must have a host name, not an address")),
        }
    }
    // The draft requires a path component. A parsed URL without one has the path `/`.
    if url.path() == "/" {
        return Err(Error("must have a path"));
    }
    if url.path().ends_with('/') {
        return Err(Error("must not end with a slash"));
    }
    // The id is compared as text everywhere, so that one client must not have two spellings.
    if url.as_str() != text {
        return Err(Error("must be in canonical form"));
    }
    Ok(())
}

fn check_development(text: &str) -> Result<(), Error> {
    // The text is compared and not the parsed URL, which hides a default port and an absent path.
    let rest = text.strip_prefix(DEVELOPMENT).unwrap_or_default();
    let rest = rest.strip_prefix('/').unwrap_or(rest);
    if rest.is_empty() || rest.starts_with('?') {
        Ok(())
    } else {
        Err(Error("of a client in development must be http://localhost without port and path"))
    }
}

fn read_development(url: &Url) -> Result<Development, Error> {
    let mut redirect_uris = Vec::new();
    let mut scope = None;
    for (name, value) in form_urlencoded::parse(url.query().unwrap_or_default().as_bytes()) {
        match &*name {
            "redirect_uri" => redirect_uris.push(value.into_owned()),
            "scope" if scope.is_none() => scope = Some(value.into_owned()),
            // With two scopes it would depend on the reader which one the user consents to.
            "scope" => return Err(Error("has \"scope\" twice")),
            _ => return Err(Error("of a client in development knows only \"redirect_uri\" and \"scope\"")),
        }
    }
    if redirect_uris.is_empty() {
        redirect_uris = ["http://127.0.0.1/", "http://[::1]/"].map(str::to_owned).into();
    }
    Ok(Development { redirect_uris, scope: scope.unwrap_or_else(|| "atproto".to_owned()) })
}

impl fmt::Display for ClientId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.text)
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ClientId({self})")
    }
}
