//! Permissions in plain words. A text says exactly what its permission allows.

use genkan_protocol::oauth::scope::{
    AccountAction, AccountAttribute, Identity, Names, Repo, RepoAction, Rpc, Scope,
};
use genkan_protocol::syntax::Nsid;

use super::messages::Messages;
use crate::base::Language;
use crate::oauth::{Permission, SetView};

/// Permissions of one kind.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) title: &'static str,
    /// The warning of the group. Can be empty.
    pub(super) warning: &'static str,
    pub(super) permissions: Vec<PermissionRow>,
}

/// A permission as the page shows it.
#[derive(Debug)]
pub(super) struct PermissionRow {
    /// The id of the element on the page.
    pub(super) id: String,
    pub(super) value: String,
    pub(super) text: String,
    /// Further detail. Can be empty.
    pub(super) detail: String,
    /// The single permissions that it contains, one per line.
    pub(super) parts: Vec<String>,
    pub(super) new: bool,
    pub(super) optional: bool,
    pub(super) ticked: bool,
}

/// Groups the requested permissions, in the order of the page.
pub(super) fn groups(
    permissions: &[Permission],
    language: Language,
    messages: &'static Messages,
) -> Vec<Group> {
    let kinds = [
        Topic::Basic,
        Topic::Identity,
        Topic::Wide,
        Topic::Email,
        Topic::Account,
        Topic::Sets,
        Topic::Repo,
        Topic::Rpc,
        Topic::Blob,
    ];
    // At the first consent everything is new, so single permissions are not marked.
    let some_known = permissions.iter().any(|one| !one.new);
    let mut shown: Vec<Option<(Topic, PermissionRow)>> = permissions
        .iter()
        .enumerate()
        .map(|(number, permission)| row(number, permission, language, messages))
        .map(|(kind, one)| Some((kind, PermissionRow { new: one.new && some_known, ..one })))
        .collect();
    let mut groups: Vec<Group> = Vec::new();
    for kind in kinds {
        let mine: Vec<PermissionRow> = shown
            .iter_mut()
            // Each row is taken out, so that it appears in one group only.
            .filter(|one| one.as_ref().is_some_and(|one| one.0 == kind))
            .filter_map(|one| one.take().map(|one| one.1))
            .collect();
        if mine.is_empty() {
            continue;
        }
        // The one permission that can take the account away from its owner gets a warning.
        let hands_over = mine.iter().any(|one| one.value == "identity:*");
        groups.push(Group {
            title: kind.title(messages),
            warning: if hands_over { messages.identity_warning } else { "" },
            permissions: mine,
        });
    }
    groups
}

/// One line for each scope value of a grant, for people.
pub(super) fn lines(scope: &str, messages: &'static Messages) -> Vec<String> {
    scope
        .split(' ')
        .map(|value| match value.parse::<Scope>() {
            Ok(scope) => text_of(&scope, messages),
            // A stored scope may be older than this version's syntax. It is shown as it is, not
            // hidden.
            Err(_) => value.to_owned(),
        })
        .collect()
}

fn row(
    number: usize,
    permission: &Permission,
    language: Language,
    messages: &'static Messages,
) -> (Topic, PermissionRow) {
    let scope = &permission.scope;
    let mut shown = PermissionRow {
        id: format!("scope-{number}"),
        value: permission.value.clone(),
        text: text_of(scope, messages),
        detail: String::new(),
        parts: Vec::new(),
        new: permission.new,
        optional: permission.optional,
        ticked: true,
    };
    match (scope, &permission.set) {
        (Scope::TransitionGeneric, _) => messages.may_generic_not.clone_into(&mut shown.detail),
        (Scope::Include(_), Some(set)) => of_set(set, language, messages, &mut shown),
        (Scope::Rpc(rpc), _) => shown.parts = names(&rpc.methods),
        (Scope::Repo(repo), _) => shown.parts = names(&repo.collections),
        _ => {}
    }
    // A single name is already in the text.
    if shown.parts.len() == 1 {
        shown.parts.clear();
    }
    (Topic::of(scope), shown)
}

/// Fills in the texts of a permission set, in the language of the page or in the author's default.
fn of_set(set: &SetView, language: Language, messages: &'static Messages, shown: &mut PermissionRow) {
    let languages = [language.tag()];
    shown.text = set.set.title(&languages).map_or_else(|| set.nsid.to_string(), str::to_owned);
    if let Some(detail) = set.set.detail(&languages) {
        detail.clone_into(&mut shown.detail);
    }
    shown.parts = set.expanded.iter().map(|scope| text_of(scope, messages)).collect();
}

fn text_of(scope: &Scope, messages: &Messages) -> String {
    match scope {
        Scope::Atproto => messages.may_atproto.to_owned(),
        Scope::TransitionGeneric => messages.may_generic.to_owned(),
        Scope::TransitionEmail => messages.may_email.to_owned(),
        Scope::TransitionChat => messages.may_chat.to_owned(),
        Scope::Repo(repo) => repo_text(repo, messages),
        Scope::Rpc(rpc) => rpc_text(rpc, messages),
        Scope::Blob(blob) => {
            let kinds: Vec<String> = blob.accept.iter().map(|kind| file_kind(kind, messages)).collect();
            messages.with(messages.may_upload, kinds.join(", "))
        }
        Scope::Account(account) => match (account.attribute, account.action) {
            (AccountAttribute::Email, AccountAction::Read) => messages.may_email,
            (AccountAttribute::Email, AccountAction::Manage) => messages.may_email_manage,
            (AccountAttribute::Repo, AccountAction::Read) => messages.may_repo_account_read,
            (AccountAttribute::Repo, AccountAction::Manage) => messages.may_repo_account,
            (AccountAttribute::Status, AccountAction::Read) => messages.may_status,
            (AccountAttribute::Status, AccountAction::Manage) => messages.may_status_manage,
        }
        .to_owned(),
        Scope::Identity(Identity::Handle) => messages.may_handle.to_owned(),
        Scope::Identity(Identity::Any) => messages.may_identity.to_owned(),
        Scope::Include(include) => messages.with(messages.may_set, &include.nsid),
    }
}

fn repo_text(repo: &Repo, messages: &Messages) -> String {
    let has = |action| repo.actions.contains(&action);
    let text = match (has(RepoAction::Create), has(RepoAction::Update), has(RepoAction::Delete)) {
        (true, false, false) => messages.may_create,
        (false, true, false) => messages.may_update,
        (false, false, true) => messages.may_delete,
        (true, true, false) => messages.may_create_update,
        (true, false, true) => messages.may_create_delete,
        (false, true, true) => messages.may_update_delete,
        // The parser puts all three actions where none is named, so the rest means every kind of
        // change.
        _ => messages.may_write,
    };
    let records = match &repo.collections {
        Names::Any => messages.any_record.to_owned(),
        names @ Names::These(_) => messages.with(messages.records_of, listed(names, messages.any_record)),
    };
    messages.with(text, records)
}

fn rpc_text(rpc: &Rpc, messages: &Messages) -> String {
    let called = messages.with(messages.may_call, listed(&rpc.methods, messages.any_method));
    let at = match &rpc.audience {
        Some(audience) => messages.with(messages.at_one, audience),
        None => messages.at_any.to_owned(),
    };
    format!("{called} {at}")
}

/// Lists the first few names. The page shows the rest below.
fn listed(names: &Names, any: &str) -> String {
    match names {
        Names::Any => any.to_owned(),
        Names::These(names) => {
            let mut text = names.iter().take(LISTED).map(Nsid::as_str).collect::<Vec<_>>().join(", ");
            if names.len() > LISTED {
                text.push_str(", …");
            }
            text
        }
    }
}

fn names(names: &Names) -> Vec<String> {
    match names {
        Names::Any => Vec::new(),
        Names::These(names) => names.iter().map(ToString::to_string).collect(),
    }
}

fn file_kind(kind: &str, messages: &Messages) -> String {
    match kind {
        "*/*" => messages.any_file.to_owned(),
        "image/*" => messages.images.to_owned(),
        "video/*" => messages.videos.to_owned(),
        "audio/*" => messages.sound.to_owned(),
        other => messages.with(messages.files_of, other),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Topic {
    Basic,
    Email,
    Identity,
    Account,
    Wide,
    Sets,
    Repo,
    Rpc,
    Blob,
}

impl Topic {
    const fn of(scope: &Scope) -> Self {
        match scope {
            Scope::Atproto => Self::Basic,
            Scope::TransitionGeneric | Scope::TransitionChat => Self::Wide,
            Scope::TransitionEmail => Self::Email,
            Scope::Account(account) => match account.attribute {
                AccountAttribute::Email => Self::Email,
                AccountAttribute::Repo | AccountAttribute::Status => Self::Account,
            },
            Scope::Identity(_) => Self::Identity,
            Scope::Include(_) => Self::Sets,
            Scope::Repo(_) => Self::Repo,
            Scope::Rpc(_) => Self::Rpc,
            Scope::Blob(_) => Self::Blob,
        }
    }

    const fn title(self, messages: &Messages) -> &'static str {
        match self {
            Self::Basic => messages.group_basic,
            Self::Email => messages.group_email,
            Self::Identity => messages.group_identity,
            Self::Account => messages.group_account,
            Self::Wide => messages.group_wide,
            Self::Sets => messages.group_sets,
            Self::Repo => messages.group_repo,
            Self::Rpc => messages.group_rpc,
            Self::Blob => messages.group_blob,
        }
    }
}

/// Maximum number of names in one line.
const LISTED: usize = 3;

#[cfg(test)]
mod tests {
    use genkan_protocol::oauth::permission_set::PermissionSet;

    use super::*;

    #[test]
    fn what_is_new_is_marked_when_something_is_not() {
        let asked = |known: &[&str]| {
            let permissions = ["atproto", "blob:*/*", "identity:handle"].map(|value| Permission {
                value: value.to_owned(),
                scope: value.parse().unwrap(),
                new: !known.contains(&value),
                optional: value != "atproto",
                set: None,
            });
            let groups = groups(&permissions, Language::English, Messages::of(Language::English));
            let marked = groups.iter().flat_map(|group| &group.permissions).filter(|one| one.new);
            marked.map(|one| one.value.clone()).collect::<Vec<_>>()
        };
        assert_eq!(asked(&[]), Vec::<String>::new());
        assert_eq!(asked(&["atproto", "blob:*/*"]), ["identity:handle"]);
    }

    #[test]
    fn each_permission_is_described_truthfully() {
        let messages = Messages::of(Language::English);
        for (value, expected) in [
            ("transition:chat.bsky", "Read and send chat messages on your behalf"),
            ("repo:app.bsky.feed.post?action=create", "Create records of type app.bsky.feed.post"),
            ("repo:app.bsky.feed.post", "Create, change and delete records of type app.bsky.feed.post"),
            ("repo:*?action=delete", "Delete records of any type"),
            ("rpc:app.bsky.feed.getTimeline?aud=*", "Call app.bsky.feed.getTimeline on any service"),
            (
                "rpc:*?aud=did:web:api.bsky.app%23bsky_appview",
                "Call any method on the service did:web:api.bsky.app#bsky_appview",
            ),
            ("blob:image/*", "Upload images"),
            ("blob:application/pdf", "Upload files of type application/pdf"),
            ("account:email", "See your email address"),
            ("account:email?action=manage", "See and change your email address"),
            ("account:repo?action=manage", "Import a repository, replacing all of your public data"),
            ("identity:handle", "Change your handle"),
            ("identity:*", "Change your entire identity: handle, keys and the server your account is on"),
        ] {
            assert_eq!(lines(value, messages), [expected], "{value}");
        }
    }

    /// A story asks for all three as an app.
    #[test]
    fn an_app_that_manages_the_status_can_deactivate_and_nothing_else() {
        for (language, may, neither) in [
            (Language::English, "Deactivate your account", "neither delete nor reactivate it"),
            (Language::German, "Ihr Konto deaktivieren", "weder löschen noch wieder aktivieren"),
        ] {
            let lines = lines("account:status?action=manage", Messages::of(language));
            let [line] = &lines[..] else { panic!("{lines:?}") };
            assert!(line.starts_with(may) && line.contains(neither), "{line}");
        }
    }

    #[test]
    fn they_come_in_groups_with_a_warning_where_it_is_due() {
        let asked = ["atproto", "blob:*/*", "identity:*", "repo:a.b.c", "repo:d.e.f", "include:x.y.z"];
        let nsid = "x.y.z".parse().unwrap();
        let document = serde_json::json!({
            "lexicon": 1,
            "id": "x.y.z",
            "defs": { "main": {
                "type": "permission-set",
                "title": "Posts",
                "title:lang": { "de": "Beiträge" },
                "permissions": [{ "type": "permission", "resource": "repo", "collection": ["x.y.a"] }],
            } },
        });
        let set = SetView {
            set: PermissionSet::parse(&document, &nsid).unwrap(),
            nsid,
            expanded: vec!["repo:x.y.a".parse().unwrap(), "repo:x.y.b".parse().unwrap()],
        };
        let permissions: Vec<Permission> = asked
            .into_iter()
            .map(|value| Permission {
                value: value.to_owned(),
                scope: value.parse().unwrap(),
                new: value != "atproto",
                optional: value != "atproto",
                set: value.starts_with("include").then(|| set.clone()),
            })
            .collect();
        let groups = groups(&permissions, Language::German, Messages::of(Language::German));
        let sizes: Vec<usize> = groups.iter().map(|group| group.permissions.len()).collect();
        assert_eq!(sizes, [1, 1, 1, 2, 1]);
        assert!(!groups[1].warning.is_empty() && groups[3].warning.is_empty());
        assert_eq!(
            (groups[2].permissions[0].text.as_str(), groups[2].permissions[0].parts.len()),
            ("Beiträge", 2)
        );
        assert!(!groups[0].permissions[0].optional && !groups[0].permissions[0].new);
    }
}
