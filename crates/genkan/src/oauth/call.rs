//! A request to one of the endpoints, as far as DPoP proofs cover it.

/// A request to one of the endpoints, as far as DPoP proofs cover it.
#[derive(Clone, Debug)]
pub(crate) struct Call<'a> {
    pub(crate) method: &'a str,
    /// The path, from its `/` on.
    pub(crate) path: &'a str,
    /// Every `DPoP` header of the request. A value that is not text counts as empty.
    pub(crate) proofs: Vec<&'a str>,
}

/// Returns every `DPoP` header. One that is not text becomes empty: it is not a proof, but it is
/// not absent either.
pub(crate) fn proofs(headers: &http::HeaderMap) -> Vec<&str> {
    headers.get_all("dpop").iter().map(|value| value.to_str().unwrap_or_default()).collect()
}
