//! From a request's path to the method it names.

/// The method of an `/xrpc/` path, if the path is exactly `/xrpc/` and one NSID.
///
/// `None`: the path lies outside `/xrpc/`. `Some(Err(_))`: inside, but no method can be read from it. Nothing is
/// decoded or cleaned up, so what a host would read differently from us never gets a route.
pub(crate) fn of_path(path: &str) -> Option<Result<&str, Crooked>> {
    let name = path.strip_prefix("/xrpc/")?;
    Some(if is_nsid(name) { Ok(name) } else { Err(Crooked) })
}

/// The path is not `/xrpc/` followed by one method name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the path must be /xrpc/ and one method name")]
pub(crate) struct Crooked;

/// NSID syntax (<https://atproto.com/specs/nsid>), checked without an allocation.
fn is_nsid(text: &str) -> bool {
    if text.len() > MAX_NSID {
        return false;
    }
    let Some((authority, name)) = text.rsplit_once('.') else { return false };
    let mut labels = authority.split('.');
    let starts_with_letter = |label: &str| label.as_bytes().first().is_some_and(u8::is_ascii_alphabetic);
    let Some(first) = labels.next() else { return false };
    if !starts_with_letter(first) || !is_label(first) {
        return false;
    }
    let mut more = 0;
    for label in labels {
        if !is_label(label) {
            return false;
        }
        more += 1;
    }
    more >= 1
        && name.len() <= MAX_LABEL
        && starts_with_letter(name)
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// One segment of the reversed domain name.
fn is_label(label: &str) -> bool {
    !label.is_empty()
        && label.len() <= MAX_LABEL
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

const MAX_NSID: usize = 317;
const MAX_LABEL: usize = 63;

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

    /// A path that two parsers may read differently is refused or not ours; none of these has a route.
    #[test]
    fn crooked_paths_have_no_method() {
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
            assert_eq!(of_path(&format!("/xrpc/{path}")), Some(Err(Crooked)), "{path:?}");
        }
        let long = format!("/xrpc/com.{}.{}", "a".repeat(60).as_str(), "b".repeat(64));
        assert_eq!(of_path(&long), Some(Err(Crooked)), "a name of 64 characters");
        let longest = format!("/xrpc/{}x.y", "abcdefgh.".repeat(36));
        assert_eq!(of_path(&longest), Some(Err(Crooked)), "327 characters in all");
    }

    #[test]
    fn other_paths_are_not_ours_to_route() {
        for path in
            ["/", "/xrpc", "/XRPC/com.atproto.repo.getRecord", "//xrpc/com.atproto.repo.getRecord", "/x"]
        {
            assert_eq!(of_path(path), None, "{path}");
        }
    }
}
