//! From a request's path to the method it names.

use genkan_protocol::syntax::Nsid;

/// The method of an `/xrpc/` path, if the path is exactly `/xrpc/` and one NSID.
///
/// `None`: the path lies outside `/xrpc/`. `Some(Err(_))`: inside, but no method can be read from
/// it. Nothing is decoded or cleaned up, so what a host would read differently from us never gets a
/// route.
pub(crate) fn of_path(path: &str) -> Option<Result<&str, MethodPathError>> {
    let name = path.strip_prefix("/xrpc/")?;
    Some(Nsid::check(name).map(|()| name).map_err(|_| MethodPathError))
}

/// The path is not `/xrpc/` followed by one method name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the path must be /xrpc/ and one method name")]
pub(crate) struct MethodPathError;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_method_name_is_read_as_it_was_sent() {
        for name in
            ["com.atproto.repo.getRecord", "app.bsky.feed.getTimeline", "com.ATPROTO.repo.getRecord", "a.b.c"]
        {
            assert_eq!(of_path(&format!("/xrpc/{name}")), Some(Ok(name)), "{name}");
        }
    }

    /// A path that two parsers may read differently is refused or not ours; none of these has a
    /// route.
    #[test]
    fn malformed_paths_have_no_method() {
        let crooked = [
            "",
            "/",
            ".",
            "..",
            "a",
            "a.b",
            "com.atproto",
            "com.atproto.repo.getRecord/",
            "com.atproto.repo.getRecord//",
            "/com.atproto.repo.getRecord",
            "//com.atproto.repo.getRecord",
            "./com.atproto.repo.getRecord",
            "../xrpc/com.atproto.repo.getRecord",
            "../com.atproto.admin.getAccountInfo",
            "com.atproto.repo.getRecord/..",
            "com.atproto.repo.getRecord/../com.atproto.admin.deleteAccount",
            "com%2eatproto.repo.getRecord",
            "com.atproto.repo.getRecor%64",
            "com.atproto.repo.getRecord%00",
            "com.atproto.repo.getRecord%2f",
            "%63om.atproto.repo.getRecord",
            "com.atproto.repo.getRecord;v=1",
            "com.atproto.repo.getRecord#x",
            "com.atproto.repo.getRecord.",
            ".com.atproto.repo.getRecord",
            "com..atproto.repo.getRecord",
            "com.atproto.repo.get-Record",
            "com.atproto.repo.get_Record",
            "com.atproto.repo.1getRecord",
            "1com.atproto.repo.getRecord",
            "-com.atproto.repo.getRecord",
            "com.-atproto.repo.getRecord",
            "com.atproto-.repo.getRecord",
            "com.atproto.repo.getRecord\\",
            "com\\atproto.repo.getRecord",
            "com.atproto.repo.getRecord ",
            " com.atproto.repo.getRecord",
            "com.atproto.repo.getRecord\u{0}",
            "com.atproto.repo.gétRecord",
            "com.atproto.repo.getRecord@x",
            "com.atproto.repo.getRecord:80",
            "com.atproto.repo.*",
            "com.atproto.repo.getRecord,com.atproto.repo.putRecord",
            "_health/",
            "_HEALTH",
        ];
        assert!(crooked.len() >= 40);
        for path in crooked {
            assert_eq!(of_path(&format!("/xrpc/{path}")), Some(Err(MethodPathError)), "{path:?}");
        }
        let long = format!("/xrpc/com.{}.{}", "a".repeat(60).as_str(), "b".repeat(64));
        assert_eq!(of_path(&long), Some(Err(MethodPathError)), "a name of 64 characters");
        let longest = format!("/xrpc/{}x.y", "abcdefgh.".repeat(36));
        assert_eq!(of_path(&longest), Some(Err(MethodPathError)), "327 characters in all");
    }

    #[test]
    fn other_paths_are_not_routed() {
        for path in
            ["/", "/xrpc", "/XRPC/com.atproto.repo.getRecord", "//xrpc/com.atproto.repo.getRecord", "/x"]
        {
            assert_eq!(of_path(path), None, "{path}");
        }
    }
}
