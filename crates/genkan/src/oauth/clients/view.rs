//! A client as people see it.

/// A client, as far as it may be shown. What anybody could write of itself is there for trusted clients only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientView {
    pub(crate) id: String,
    /// The host of the client id: what people should look at.
    pub(crate) host: String,
    /// The operator vouches for it.
    pub(crate) trusted: bool,
    /// An app under development on the person's own machine (`http://localhost`).
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
