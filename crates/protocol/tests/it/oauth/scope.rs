use genkan_protocol::oauth::permission_set::{Error, PermissionSet};
use genkan_protocol::oauth::pkce::{Challenge, verifier_of};
use genkan_protocol::oauth::scope::{
    AccountAction, AccountAttribute, Identity, Include, RepoAction, Scope, Scopes, undeclared,
};
use serde_json::{Value, json};

fn canonical(text: &str) -> Option<String> {
    text.parse::<Scope>().ok().map(|scope| scope.to_string())
}

#[test]
fn scopes_print_in_one_form() {
    // 6.A.11
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
        assert_eq!(canonical(expected).as_deref(), Some(expected));
    }
}

#[test]
fn what_is_no_scope_is_refused() {
    // 6.A.11
    for text in [
        "",
        "invalid",
        "scope",
        "openid",
        "ATPROTO",
        "atproto:x",
        "transition",
        "transition:other",
        "account",
        "account:",
        "account:invalid",
        "account:email?action=invalid",
        "invalid:email",
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
        "repo:com.example.*",
        "repo:*?action=*",
        "repo:com.example.foo?action=invalid",
        "repo?collection=invalid&action=create",
        "repo:com.example.foo?collection=com.example.bar",
        "repo:com.example.foo?Action=create",
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
        assert_eq!(canonical(text), None, "{text}");
    }
}

#[test]
fn lists_keep_what_is_known_once() {
    // 6.A.20
    let scopes = Scopes::parse("atproto  repo:com.example.foo unknown atproto repo:bad blob:*/* blob:*/*");
    assert_eq!(scopes.to_string(), "atproto repo:com.example.foo blob:*/*");
    assert!(scopes.contains("atproto") && !scopes.contains("unknown"));
    assert!(Scopes::parse("").is_empty() && Scopes::parse("x y").is_empty());
    let fewer = Scopes::parse("blob:*/* atproto");
    assert!(fewer.is_within(&scopes) && !scopes.is_within(&fewer));
    let added = Scopes::parse("atproto identity:*");
    assert_eq!(scopes.intersection(&added).to_string(), "atproto");
}

#[test]
fn requests_are_compared_letter_by_letter() {
    let declared = "atproto repo:* blob:*/*";
    assert_eq!(undeclared("atproto blob:*/*", declared), None);
    assert_eq!(undeclared("atproto repo:com.example.foo", declared), Some("repo:com.example.foo"));
    assert_eq!(undeclared("atproto repo?collection=*", declared), Some("repo?collection=*"));
    assert_eq!(undeclared("openid atproto", declared), Some("openid"));
    assert_eq!(undeclared("", declared), None);
}

#[test]
fn records_are_written_as_permitted() {
    // 6.A.17, 6.A.19
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
            "{scope} {action:?} {collection}"
        );
    }
}

#[test]
fn services_are_called_as_permitted() {
    // 6.A.18, 6.A.19
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
        assert_eq!(Scopes::parse(scope).allows_rpc(lxm, aud), allowed, "{scope} {lxm} {aud}");
    }
}

#[test]
fn files_are_uploaded_as_permitted() {
    // 6.A.12, 6.A.14, 6.A.19
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
        assert_eq!(Scopes::parse(scope).allows_blob(mime), allowed, "{scope} {mime}");
    }
}

#[test]
fn settings_and_identity_are_changed_as_permitted() {
    // 6.A.13, 6.A.15, 6.A.19
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
        assert_eq!(Scopes::parse(scope).allows_identity(attribute), allowed, "{scope} {attribute:?}");
    }
}

fn include(text: &str) -> Include {
    match text.parse().unwrap() {
        Scope::Include(include) => include,
        other => panic!("{other}"),
    }
}

#[test]
fn a_set_speaks_for_its_own_namespace() {
    // 6.A.16
    let set = include("include:com.example.foo.auth");
    for (name, own) in [
        ("com.example.foo.identifier", true),
        ("com.example.foo.bar.baz", true),
        ("com.example.foo.bar.baz.quz", true),
        ("com.example.foo.auth", true),
        ("com.example.foo.authMore", true),
        ("com.example.foo.auth.deeper", true),
        ("com.examples.foo.bar", false),
        ("org.com.example.foo.bar", false),
        ("com.example.foo", false),
        ("com.example.fooo.bar", false),
        ("com.example.bar", false),
        ("com.example.bar.foo", false),
        ("com.atproto.foo.auth", false),
    ] {
        assert_eq!(set.has_authority_over(&name.parse().unwrap()), own, "{name}");
    }
}

fn lexicon(permissions: &Value) -> Value {
    json!({
        "$type": "com.atproto.lexicon.schema", "lexicon": 1, "id": "com.example.calendar.auth",
        "defs": {"main": {
            "type": "permission-set", "title": "Calendar", "title:lang": {"fr": "Calendrier", "pt-BR": "Agenda"},
            "detail": "Manages events", "permissions": permissions,
        }},
    })
}

fn set(permissions: &Value) -> Result<PermissionSet, Error> {
    PermissionSet::parse(&lexicon(permissions), &"com.example.calendar.auth".parse().unwrap())
}

#[test]
fn permission_sets_expand() {
    // 6.A.16
    // 71: what names another namespace is dropped.
    let plain = "include:com.example.calendar.auth";
    let service = "include:com.example.calendar.auth?aud=did:web:example.com#foo";
    let list = "com.example.calendar.listEvents";
    let event = "com.example.calendar.event";
    for (asked, members, expanded) in [
        (
            plain,
            json!({"resource": "rpc", "aud": "*", "lxm": [list]}),
            Some("rpc:com.example.calendar.listEvents?aud=*"),
        ),
        (
            service,
            json!({"resource": "rpc", "inheritAud": true, "lxm": [list]}),
            Some("rpc:com.example.calendar.listEvents?aud=did:web:example.com%23foo"),
        ),
        (plain, json!({"resource": "repo", "collection": [event]}), Some("repo:com.example.calendar.event")),
        (
            plain,
            json!({"resource": "repo", "collection": [event], "action": ["update", "create"]}),
            Some("repo:com.example.calendar.event?action=create&action=update"),
        ),
        (plain, json!({"resource": "rpc", "inheritAud": true, "lxm": [list]}), None),
        (plain, json!({"resource": "rpc", "lxm": [list]}), None),
        (service, json!({"resource": "rpc", "lxm": [list]}), None),
        (service, json!({"resource": "rpc", "inheritAud": false, "lxm": [list]}), None),
        (service, json!({"resource": "rpc", "inheritAud": true, "aud": "*", "lxm": [list]}), None),
        (
            service,
            json!({"resource": "rpc", "inheritAud": true, "aud": "did:web:example.com#foo", "lxm": [list]}),
            None,
        ),
        (plain, json!({"resource": "rpc", "aud": "did:web:example.com#foo", "lxm": [list]}), None),
        (plain, json!({"resource": "rpc", "aud": "*", "lxm": list}), None),
        (plain, json!({"resource": "rpc", "aud": "*", "lxm": []}), None),
        (plain, json!({"resource": "rpc", "aud": "*"}), None),
        (plain, json!({"resource": "rpc", "aud": "*", "lxm": ["*"]}), None),
        (plain, json!({"resource": "rpc", "aud": "*", "lxm": [list], "extra": "x"}), None),
        (plain, json!({"resource": "rpc", "aud": "*", "lxm": ["com.atproto.moderation.createReport"]}), None),
        (
            plain,
            json!({"resource": "rpc", "aud": "*", "lxm": [list, "com.atproto.moderation.createReport"]}),
            None,
        ),
        (plain, json!({"resource": "repo", "collection": ["*"]}), None),
        (plain, json!({"resource": "repo", "collection": ["com.example.other"]}), None),
        (plain, json!({"resource": "repo", "collection": [event], "action": []}), None),
        (plain, json!({"resource": "repo", "collection": [event], "action": ["read"]}), None),
        (plain, json!({"resource": "repo", "collection": [5]}), None),
        (plain, json!({"resource": "blob", "accept": ["image/*"]}), None),
        (plain, json!({"resource": "account", "attr": "email"}), None),
        (plain, json!({"resource": "identity", "attr": "*"}), None),
        (plain, json!({"collection": [event]}), None),
    ] {
        let mut entry = members.clone();
        entry["type"] = json!("permission");
        // A bad neighbour takes nothing along.
        let made = set(&json!([7, entry, {"type": "permission"}])).unwrap().expand(&include(asked));
        let made: Vec<_> = made.iter().map(ToString::to_string).collect();
        assert_eq!(made, expanded.into_iter().collect::<Vec<_>>(), "{asked} {members}");
    }
    let scopes = Scopes::parse("atproto include:com.example.calendar.auth repo:com.example.calendar.event");
    let known = set(&json!([{"type": "permission", "resource": "repo", "collection": [event]}])).unwrap();
    assert_eq!(
        scopes.expanded(|include| known.expand(include)).to_string(),
        "atproto repo:com.example.calendar.event"
    );
    assert_eq!(scopes.includes().count(), 1);
}

#[test]
fn b16_sets_stand_beside_explicit_scopes_and_aud_is_compared_alike_for_every_method() {
    let aud = "did:web:api.example.com#calendar";
    let list = "com.example.calendar.listEvents";
    let asked = format!(
        "atproto include:com.example.calendar.auth?aud={aud} repo:app.bsky.feed.post rpc:app.bsky.feed.getTimeline?aud={aud}"
    );
    let known = set(&json!([
        {"type": "permission", "resource": "rpc", "inheritAud": true, "lxm": [list]},
        {"type": "permission", "resource": "repo", "collection": ["com.example.calendar.event"]},
    ]))
    .unwrap();
    let scopes = Scopes::parse(&asked).expanded(|include| known.expand(include));
    assert!(scopes.allows_repo(RepoAction::Create, "app.bsky.feed.post"));
    assert!(scopes.allows_repo(RepoAction::Create, "com.example.calendar.event"));
    // By a set or by itself, proxied or as a service token: the same comparison.
    for lxm in [list, "app.bsky.feed.getTimeline"] {
        for (called, allowed) in [
            (aud, true),
            ("did:web:api.example.com", false),
            ("did:web:api.example.com#other", false),
            ("did:web:api.example.com#calenda", false),
            ("did:web:other.example.com#calendar", false),
            ("*", false),
        ] {
            assert_eq!(scopes.allows_rpc(lxm, called), allowed, "{lxm} {called}");
        }
    }
    assert!(!scopes.allows_rpc("com.example.calendar.other", aud));
}

#[test]
fn permission_sets_speak_languages() {
    let set = set(&json!([])).unwrap();
    assert_eq!(set.title(&["de", "fr-CA"]), Some("Calendrier"));
    assert_eq!(set.title(&["pt-br"]), Some("Agenda"));
    assert_eq!(set.title(&["pt"]), Some("Calendar"));
    assert_eq!(set.detail(&["fr"]), Some("Manages events"));
}

#[test]
fn permission_sets_are_bounded() {
    // 70: what is too large is no set
    let entry =
        json!({"type": "permission", "resource": "repo", "collection": ["com.example.calendar.event"]});
    assert!(set(&json!(vec![&entry; 512])).is_ok());
    assert_eq!(set(&json!(vec![&entry; 10_000])), Err(Error::TooLarge));
    assert_eq!(
        set(&json!([{"type": "permission", "resource": "repo", "collection": vec!["a.b.c"; 10_000]}])),
        Err(Error::TooLarge)
    );
    assert_eq!(set(&json!({})), Err(Error::NotAPermissionSet));
    let other = "com.example.calendar.other".parse().unwrap();
    assert_eq!(PermissionSet::parse(&lexicon(&json!([])), &other), Err(Error::WrongId));
    let nsid = "com.example.calendar.auth".parse().unwrap();
    for (changed, error) in [
        (json!({"lexicon": 2, "id": "com.example.calendar.auth", "defs": {}}), Error::NotALexicon),
        (json!({"lexicon": 1, "id": "com.example.calendar.auth"}), Error::NotALexicon),
        (json!([]), Error::NotALexicon),
        (
            json!({"lexicon": 1, "id": "com.example.calendar.auth", "defs": {"main": {"type": "query"}}}),
            Error::NotAPermissionSet,
        ),
    ] {
        assert_eq!(PermissionSet::parse(&changed, &nsid), Err(error));
    }
}

#[test]
fn a_challenge_is_met_by_its_verifier() {
    // RFC 7636, appendix B.
    let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    let challenge: Challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM".parse().unwrap();
    assert!(challenge.is_met_by(verifier));
    assert_eq!(Challenge::of(verifier).to_string(), challenge.to_string());
    let made = verifier_of(&[0xff; 32]);
    assert!(Challenge::of(&made).is_met_by(&made) && made.len() == 43);
    for wrong in [
        String::new(),
        verifier.to_lowercase(),
        "a".repeat(42),
        format!("{verifier}="),
        "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM".to_owned(),
    ] {
        assert!(!challenge.is_met_by(&wrong), "{wrong}");
    }
    for short in ["a".repeat(42), "a".repeat(129), format!("{} ", "a".repeat(50))] {
        assert!(!Challenge::of(&short).is_met_by(&short), "{short}");
    }
    for wrong in [
        "",
        verifier,
        "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-c",
        "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw+cM",
    ] {
        assert!(wrong == verifier || wrong.parse::<Challenge>().is_err(), "{wrong}");
    }
}
