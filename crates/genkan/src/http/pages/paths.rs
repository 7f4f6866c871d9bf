//! The paths of pages.

use crate::links::CALLBACK;

/// Whether a path is one of the pages, which only their own origin may read.
pub(crate) fn is_page(path: &str) -> bool {
    ["/oauth/authorize", "/account", CALLBACK]
        .iter()
        .any(|page| path.strip_prefix(page).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_known_by_their_paths() {
        for path in [
            "/oauth/authorize",
            "/oauth/authorize/sign-in",
            "/oauth/callback",
            "/account",
            "/account/u/did:plc:x",
        ] {
            assert!(is_page(path), "{path}");
        }
        for path in ["/", "/oauth/authorizes", "/oauth/token", "/accounts", "/xrpc/account"] {
            assert!(!is_page(path), "{path}");
        }
    }
}
