//! A request to one of the endpoints, as far as DPoP proofs are about it.

/// A request to one of the endpoints, as far as proofs are about it.
#[derive(Clone, Debug)]
pub(crate) struct Call<'a> {
    pub(crate) method: &'a str,
    /// From its `/` on.
    pub(crate) path: &'a str,
    /// Every `DPoP` header that came; a value that is not text counts as empty.
    pub(crate) proofs: Vec<&'a str>,
}

/// Every `DPoP` header; one that is not text is no proof, and is not nothing either.
pub(crate) fn proofs(headers: &http::HeaderMap) -> Vec<&str> {
    headers.get_all("dpop").iter().map(|value| value.to_str().unwrap_or_default()).collect()
}
