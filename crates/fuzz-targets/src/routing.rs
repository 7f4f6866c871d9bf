//! The method and the account that a request names.

use genkan::routing::fuzzing;
use genkan_protocol::syntax::{AtIdentifier, Nsid};
use url::form_urlencoded;

use crate::text;

/// Finds the method and the account of a path and a query. Another parser of queries must find the
/// same account. Otherwise a host could answer for an account that the edge did not check.
pub fn target(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    let (path, query) = match text.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (text, None),
    };
    if let Some(Some(method)) = fuzzing::method(path) {
        assert!(Nsid::check(method).is_ok() && path.strip_prefix("/xrpc/") == Some(method));
        fuzzing::decide(method, query);
    }
    for parameter in ["repo", "did"] {
        let Some(account) = fuzzing::account(query, parameter) else { continue };
        assert!(account.parse::<AtIdentifier>().is_ok_and(|parsed| parsed.as_str() == account));
        // `None` if only the edge reads this name: `repo[]=…` is a list to some parsers.
        let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        let found: Vec<_> = pairs
            .filter(|(name, _)| name == parameter)
            .map(|(_, value)| value.to_ascii_lowercase())
            .collect();
        assert!(found.is_empty() || found == [account.to_ascii_lowercase()], "{found:?}, not {account}");
    }
}
