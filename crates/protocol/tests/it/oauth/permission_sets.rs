use genkan_protocol::oauth::permission_set::{Error, PermissionSet};
use genkan_protocol::oauth::scope::{Include, RepoAction, Scope, Scopes};
use serde_json::{Value, json};

fn include(text: &str) -> Include {
    match text.parse().unwrap() {
        Scope::Include(include) => include,
        other => panic!("{other}"),
    }
}

#[test]
fn a_set_speaks_for_its_own_namespace() {
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
        assert_eq!(set.has_authority_over(&name.parse().unwrap()), own, "6.A.16: {name}");
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
        // A bad entry spoils none of the others.
        let made = set(&json!([7, entry, {"type": "permission"}])).unwrap().expand(&include(asked));
        let made: Vec<_> = made.iter().map(ToString::to_string).collect();
        assert_eq!(made, expanded.into_iter().collect::<Vec<_>>(), "71, 6.A.16: {asked} {members}");
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
fn sets_stand_beside_explicit_scopes_and_aud_is_compared_alike_for_every_method() {
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
            assert_eq!(scopes.allows_rpc(lxm, called), allowed, "6.B.16: {lxm} {called}");
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
    let entry =
        json!({"type": "permission", "resource": "repo", "collection": ["com.example.calendar.event"]});
    assert!(set(&json!(vec![&entry; 512])).is_ok());
    assert_eq!(set(&json!(vec![&entry; 10_000])), Err(Error::TooLarge), "70: too large to be a set");
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
