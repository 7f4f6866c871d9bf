use genkan_protocol::oauth::scope::{
    AccountAction, AccountAttribute, Identity, RepoAction, Scope, Scopes, undeclared,
};

fn canonical(text: &str) -> Option<String> {
    text.parse::<Scope>().ok().map(|scope| scope.to_string())
}

#[test]
fn scopes_print_in_one_form() {
    let service = "rpc:com.example.service?aud=did:web:example.com%23service_id";
    for (text, expected) in [
        ("atproto", "atproto"),
        ("transition:generic", "transition:generic"),
        ("transition:email", "transition:email"),
        ("transition:chat.bsky", "transition:chat.bsky"),
        ("account:email", "account:email"),
        ("account:email?action=read", "account:email"),
        ("account?attr=email", "account:email"),
        ("account:repo?action=manage", "account:repo?action=manage"),
        ("account:status?action=read&action=manage", "account:status?action=manage"),
        ("account:status?", "account:status"),
        ("blob:image/png", "blob:image/png"),
        // Media types have no case, and a wider range includes narrower ones.
        ("blob:IMAGE/PNG", "blob:image/png"),
        ("blob:image/svg+xml", "blob:image/svg+xml"),
        ("blob?accept=image/png&accept=image/svg%2Bxml", "blob?accept=image/png&accept=image/svg%2Bxml"),
        ("blob?accept=image/png&accept=image/jpeg", "blob?accept=image/jpeg&accept=image/png"),
        ("blob?accept=*/*&accept=image/*", "blob:*/*"),
        ("blob?accept=image/png&accept=image/*", "blob:image/*"),
        ("blob?accept=image/*&accept=text/plain", "blob?accept=image/*&accept=text/plain"),
        ("identity:handle", "identity:handle"),
        ("identity:*", "identity:*"),
        ("identity?attr=*", "identity:*"),
        ("repo:com.example.foo", "repo:com.example.foo"),
        // A name may be percent-encoded. Actions and collections are sorted, and defaults are left
        // out.
        ("repo:com%2Eexample.foo", "repo:com.example.foo"),
        (
            "repo:com.example.foo?action=update&action=create",
            "repo:com.example.foo?action=create&action=update",
        ),
        ("repo:*?action=create&action=update&action=delete", "repo:*"),
        ("repo?collection=*&collection=com.example.foo&action=update", "repo:*?action=update"),
        ("repo?collection=*", "repo:*"),
        ("repo?action=create&collection=com.example.foo", "repo:com.example.foo?action=create"),
        (
            "repo?action=create&collection=com.example.foo&collection=com.example.bar",
            "repo?collection=com.example.bar&collection=com.example.foo&action=create",
        ),
        (service, service),
        // A raw `#` in a scope is accepted and printed encoded.
        ("rpc:com.example.service?aud=did:web:example.com#service_id", service),
        ("rpc?aud=did:web:example.com%23service_id&lxm=com.example.service", service),
        (
            "rpc?lxm=com.example.method1&lxm=com.example.method2&aud=*",
            "rpc?lxm=com.example.method1&lxm=com.example.method2&aud=*",
        ),
        (
            "rpc?lxm=com.example.method1&lxm=*&aud=did:web:example.com%23x",
            "rpc:*?aud=did:web:example.com%23x",
        ),
        ("rpc:com.example.method1?&aud=*", "rpc:com.example.method1?aud=*"),
        ("include:com.example.bar", "include:com.example.bar"),
        (
            "include?aud=did:web:example.com%23my_service&nsid=com.example.baz",
            "include:com.example.baz?aud=did:web:example.com%23my_service",
        ),
        (
            "include:com.example.baz?aud=did:web:example.com#my_service",
            "include:com.example.baz?aud=did:web:example.com%23my_service",
        ),
    ] {
        assert_eq!(canonical(text).as_deref(), Some(expected), "{text}");
        assert_eq!(canonical(expected).as_deref(), Some(expected), "6.A.11");
    }
}

#[test]
fn a_text_that_is_not_a_scope_is_refused() {
    for text in [
        "",
        "invalid",
        "scope",
        "openid",
        // Scope values are compared with their case.
        "ATPROTO",
        "atproto:x",
        "transition",
        "transition:other",
        "account",
        "account:",
        "account:invalid",
        "account:email?action=invalid",
        "invalid:email",
        // The positional parameter must not be repeated by its name.
        "account:email?attr=email",
        "account?attr=email&attr=repo",
        "account:email&action=manage",
        "blob",
        "blob:",
        "blob:*",
        "blob:invalid",
        "blob:/image",
        "blob:image/",
        "blob:*/**",
        "blob:*/png",
        "blob:image/**",
        "blob:image//png",
        "blob:image/png/extra",
        "blob:image/%20png",
        // In a query `+` is a space.
        "blob?accept=image/svg+xml",
        "blob?accept=image/png&accept=invalid",
        "blob:image/png?accept=image/png",
        "blob:image/png?x=y",
        "identity",
        "identity:invalid",
        "identity:*?action=*",
        "identity:*?action=manage",
        "identity:handle?action=x",
        "identity?attribute=handle",
        "identity:handle?attr=handle",
        "identity?attr=handle&attr=*",
        "repo",
        "repo:",
        "repo:invalid",
        "repo:foo%20bar",
        "repo:.foo",
        "repo:bar.",
        // There are no wildcards below `*`.
        "repo:com.example.*",
        "repo:*?action=*",
        "repo:com.example.foo?action=invalid",
        "repo?collection=invalid&action=create",
        "repo:com.example.foo?collection=com.example.bar",
        "repo:com.example.foo?Action=create",
        // Broken percent-encoding.
        "repo:com.example.foo%",
        "repo:com.example.foo%2",
        "repo:com.example.foo%zz",
        "repo:com.example.foo%ff",
        "repo:com.example.\"foo",
        "repo:com.example.\\foo",
        "repo:com.example.f\u{f6}\u{f6}",
        "repos:com.example.foo",
        "rpc",
        "rpc:*",
        "rpc:invalid",
        "rpc?aud=*&lxm=*",
        // All methods of all services: no app may have that.
        "rpc:*?aud=*",
        "rpc:*?lxm=*",
        "rpc?aud=did:web:example.com%23x",
        "rpc:?aud=did:web:example.com%23x",
        "rpc:com.example.service",
        "rpc:com.example.service?aud=invalid",
        "rpc:com.example.service?aud=did:web:example.com",
        "rpc:com.example.service?aud=*&aud=*",
        "rpc:com.example.service?aud=did:web:example.com%23x&invalid=param",
        "rpc:foo.bar?aud=did:foo:bar?lxm=bar.baz",
        "rpc:foo.bar.baz?aud=did:web%23x",
        "rpc:foo.bar.baz?aud=did:plc:111%23x",
        "rpc:foo.bar.baz?aud=did:foo:bar%23x",
        "rpc:foo.bar.baz?aud=did:web:example.com%23x&lxm=foo.bar.baz",
        "rpc:foo.bar.baz?aud=did:web:example.com%23",
        "rpc:foo.bar.baz?aud=did:web:example.com%23a%23b",
        "rpc:foo.bar.baz?aud=did:web:example.com%23a%20b",
        "notrpc:com.example.service?aud=did:web:example.com%23x",
        "include",
        "include#",
        "include:",
        "include:#",
        "include:&",
        "include:com..example",
        "include:com.example",
        "include:9com.example.foo",
        "include:com.example.-bar",
        "include:invalid^nsid",
        "include:nsid",
        "include:*",
        "include:com.example.baz?aud=",
        "include:com.example.baz?aud=did:web:example.com",
        "include:com.example.baz?aud=*",
    ] {
        assert_eq!(canonical(text), None, "6.A.11: {text}");
    }
}

#[test]
fn lists_keep_what_is_known_once() {
    let scopes = Scopes::parse("atproto  repo:com.example.foo unknown atproto repo:bad blob:*/* blob:*/*");
    assert_eq!(scopes.to_string(), "atproto repo:com.example.foo blob:*/*");
    assert!(scopes.contains("atproto") && !scopes.contains("unknown"));
    assert!(Scopes::parse("").is_empty() && Scopes::parse("x y").is_empty());
    // The order of a list has no meaning.
    let fewer = Scopes::parse("blob:*/* atproto");
    assert!(fewer.is_within(&scopes) && !scopes.is_within(&fewer));
    let added = Scopes::parse("atproto identity:*");
    assert_eq!(scopes.intersection(&added).to_string(), "atproto", "6.A.20");
}

#[test]
fn requests_are_compared_letter_by_letter() {
    let declared = "atproto repo:* blob:*/*";
    assert_eq!(undeclared("atproto blob:*/*", declared), None);
    // `repo:*` allows this collection, but the app did not declare this value.
    assert_eq!(undeclared("atproto repo:com.example.foo", declared), Some("repo:com.example.foo"));
    assert_eq!(undeclared("atproto repo?collection=*", declared), Some("repo?collection=*"));
    assert_eq!(undeclared("openid atproto", declared), Some("openid"));
    assert_eq!(undeclared("", declared), None);
}

#[test]
fn records_are_written_as_permitted() {
    use RepoAction::{Create, Delete, Update};
    for (scope, action, collection, allowed) in [
        ("repo:*", Create, "com.example.foo", true),
        ("repo:*", Delete, "app.bsky.feed.post", true),
        ("repo:*?action=create", Create, "com.example.foo", true),
        ("repo:*?action=create", Update, "com.example.foo", false),
        ("repo:com.example.foo?action=create", Create, "com.example.foo", true),
        ("repo:com.example.foo?action=create", Update, "com.example.foo", false),
        ("repo:com.example.foo?action=create", Create, "app.bsky.feed.post", false),
        ("repo:com.example.foo", Create, "com.example.fooo", false),
        ("repo:com.example.foo?action=create&action=update", Delete, "com.example.foo", false),
        ("repo?collection=com.example.foo&collection=com.example.bar", Update, "com.example.bar", true),
        ("repo:not-an-nsid", Create, "not-an-nsid", false),
        ("transition:generic", Create, "app.bsky.feed.post", true),
        ("transition:generic", Update, "com.example.foo", true),
        ("atproto transition:email", Create, "app.bsky.feed.post", false),
        ("atproto", Create, "app.bsky.feed.post", false),
    ] {
        assert_eq!(
            Scopes::parse(scope).allows_repo(action, collection),
            allowed,
            "6.A.17, 6.A.19: {scope} {action:?} {collection}"
        );
    }
}

#[test]
fn services_are_called_as_permitted() {
    let feed = "app.bsky.feed.getFeed";
    for (scope, lxm, aud, allowed) in [
        ("rpc:*?lxm=*", feed, "did:web:example.com", false),
        ("rpc:app.bsky.feed.getFeed?aud=*", feed, "did:web:example.com", true),
        ("rpc:app.bsky.feed.getFeed?aud=*", feed, "did:web:example.com#any", true),
        ("rpc:app.bsky.feed.getFeed?aud=*", "com.example.method", "did:web:example.com", false),
        ("rpc:app.bsky.feed.getFeed?aud=*", "*", "did:web:example.com", false),
        ("rpc:*?aud=did:web:example.com%23foo", "com.example.method", "did:web:example.com#foo", true),
        ("rpc:*?aud=did:web:example.com%23foo", "*", "did:web:example.com#foo", true),
        ("rpc:*?aud=did:web:example.com%23foo", feed, "did:web:bar.com#foo", false),
        ("rpc:*?aud=did:web:example.com%23foo", feed, "did:web:example.com", false),
        ("rpc:*?aud=did:web:example.com%23foo", feed, "did:web:example.com#bar", false),
        ("transition:generic", feed, "did:web:example.com", true),
        ("transition:generic", "*", "did:web:example.com", true),
        ("transition:generic", "chat.bsky.convo.sendMessage", "did:web:example.com", false),
        ("transition:chat.bsky", "chat.bsky.convo.sendMessage", "did:web:example.com", true),
        ("transition:chat.bsky", feed, "did:web:example.com", false),
        ("transition:chat.bsky", "*", "did:web:example.com", false),
        ("atproto", feed, "did:web:example.com", false),
    ] {
        assert_eq!(Scopes::parse(scope).allows_rpc(lxm, aud), allowed, "6.A.18, 6.A.19: {scope} {lxm} {aud}");
    }
}

#[test]
fn files_are_uploaded_as_permitted() {
    for (scope, mime, allowed) in [
        ("blob:image/png", "image/png", true),
        ("blob:image/png", "image/jpeg", false),
        ("blob:image/png", "*/mime", false),
        ("blob:image/png", "image", false),
        ("blob:image/*", "image/gif", true),
        ("blob:image/*", "text/html", false),
        ("blob:image/*", "image//png", false),
        ("blob:image/*", "image/ png", false),
        ("blob:image/*", "images/png", false),
        ("blob:*/*", "application/json", true),
        ("blob:*/*", "image/", false),
        ("blob:*/*", "/mime", false),
        ("blob:*/*", "image/*", false),
        ("blob?accept=image/png&accept=image/jpeg", "image/jpeg", true),
        ("blob?accept=image/png&accept=image/jpeg", "image/gif", false),
        ("blob:*", "image/png", false),
        ("transition:generic", "foo/bar", true),
        ("atproto", "image/png", false),
    ] {
        assert_eq!(Scopes::parse(scope).allows_blob(mime), allowed, "6.A.12, 6.A.14, 6.A.19: {scope} {mime}");
    }
}

#[test]
fn settings_and_identity_are_changed_as_permitted() {
    use AccountAction::{Manage, Read};
    use AccountAttribute::{Email, Repo, Status};
    for (scope, attribute, action, allowed) in [
        ("account:email", Email, Read, true),
        ("account:email", Email, Manage, false),
        ("account:email", Repo, Read, false),
        ("account:email?action=manage", Email, Read, true),
        ("account:repo?action=manage", Repo, Manage, true),
        ("account:status", Status, Read, true),
        ("account:status", Status, Manage, false),
        ("transition:email account:repo", Email, Read, true),
        ("transition:email account:repo", Email, Manage, false),
        ("transition:email account:repo", Repo, Read, true),
        ("transition:generic", Email, Read, false),
        ("transition:generic", Repo, Manage, false),
    ] {
        assert_eq!(
            Scopes::parse(scope).allows_account(attribute, action),
            allowed,
            "{scope} {attribute:?} {action:?}"
        );
    }
    for (scope, attribute, allowed) in [
        ("identity:handle", Identity::Handle, true),
        ("identity:handle", Identity::Any, false),
        ("identity:*", Identity::Handle, true),
        ("identity:*", Identity::Any, true),
        ("transition:generic", Identity::Handle, false),
    ] {
        assert_eq!(
            Scopes::parse(scope).allows_identity(attribute),
            allowed,
            "6.A.13, 6.A.15, 6.A.19: {scope} {attribute:?}"
        );
    }
}
