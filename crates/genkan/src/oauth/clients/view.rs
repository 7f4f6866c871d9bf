//! The view of a client for people.

/// A client, as far as people may see it. Names and images that anyone could claim are present for
/// trusted clients only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientView {
    pub(crate) id: String,
    /// The host of the client id, by which people recognise the client.
    pub(crate) host: String,
    /// Whether the operator vouches for the client.
    pub(crate) trusted: bool,
    /// Whether it is an app in development on the person's own machine (`http://localhost`).
    pub(crate) development: bool,
    /// `None` unless trusted.
    pub(crate) name: Option<String>,
    /// `None` unless trusted.
    pub(crate) logo: Option<String>,
    /// `None` unless trusted.
    pub(crate) home: Option<String>,
    pub(crate) terms: Option<String>,
    pub(crate) policy: Option<String>,
}
