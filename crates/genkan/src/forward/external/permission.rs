//! What a caller of an account elsewhere may ask for: which methods are carried at all, and which its scope allows.
//!
//! Only what can be told by the method's name is told here. Bodies are not read: the account's PDS knows the same scope,
//! and looks into each of them.

use genkan_protocol::oauth::scope::{AccountAction, AccountAttribute, RepoAction, Scope, Scopes};

/// Whether a method is carried for an account that lives elsewhere.
pub(in crate::forward) fn is_carried(method: &str) -> bool {
    let begins =
        |family: &str| method.get(..family.len()).is_some_and(|start| start.eq_ignore_ascii_case(family));
    begins("com.atproto.repo.")
        || begins("com.atproto.sync.")
        || method.eq_ignore_ascii_case("com.atproto.server.getServiceAuth")
}

/// Whether a scope allows calling a method at all.
pub(in crate::forward) fn allows(scope: &str, method: &str) -> bool {
    let scopes = Scopes::parse(scope);
    if !scopes.contains("atproto") {
        return false;
    }
    let any = |allows: &dyn Fn(&Scope) -> bool| scopes.iter().any(|(_, scope)| allows(scope));
    let writes = |actions: &[RepoAction]| {
        actions.iter().all(|action| {
            any(&|scope| match scope {
                Scope::TransitionGeneric => true,
                Scope::Repo(repo) => repo.actions.contains(action),
                _ => false,
            })
        })
    };
    match method.to_ascii_lowercase().as_str() {
        "com.atproto.repo.createrecord" => writes(&[RepoAction::Create]),
        "com.atproto.repo.putrecord" => writes(&[RepoAction::Create, RepoAction::Update]),
        "com.atproto.repo.deleterecord" => writes(&[RepoAction::Delete]),
        "com.atproto.repo.applywrites" => {
            any(&|scope| matches!(scope, Scope::TransitionGeneric | Scope::Repo(_)))
        }
        "com.atproto.repo.uploadblob" => {
            any(&|scope| matches!(scope, Scope::TransitionGeneric | Scope::Blob(_)))
        }
        "com.atproto.repo.importrepo" => scopes.allows_account(AccountAttribute::Repo, AccountAction::Manage),
        "com.atproto.server.getserviceauth" => {
            any(&|scope| matches!(scope, Scope::TransitionGeneric | Scope::TransitionChat | Scope::Rpc(_)))
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_families_and_one_method_are_carried() {
        for method in [
            "com.atproto.repo.createRecord",
            "com.atproto.repo.somethingNew",
            "COM.ATPROTO.SYNC.listRepos",
            "com.atproto.server.getServiceAuth",
            "com.atproto.server.GETserviceAUTH",
        ] {
            assert!(is_carried(method), "{method}");
        }
        for method in [
            "com.atproto.server.getSession",
            "com.atproto.identity.resolveHandle",
            "app.bsky.feed.getTimeline",
            "com.atproto.repository.x",
            "com.atproto.server.getServiceAuthentication",
            "",
        ] {
            assert!(!is_carried(method), "{method}");
        }
    }

    /// The table of the contract's §3.7.
    #[test]
    fn a_scope_allows_what_it_names() {
        let all = "createRecord putRecord deleteRecord applyWrites uploadBlob importRepo listMissingBlobs";
        for (scope, allowed) in [
            ("", ""),
            ("transition:generic", ""),
            ("atproto", "listMissingBlobs"),
            (
                "atproto transition:generic",
                "createRecord putRecord deleteRecord applyWrites uploadBlob listMissingBlobs",
            ),
            ("atproto transition:email", "listMissingBlobs"),
            ("atproto repo:a.b.c", "createRecord putRecord deleteRecord applyWrites listMissingBlobs"),
            ("atproto repo:a.b.c?action=create", "createRecord applyWrites listMissingBlobs"),
            ("atproto repo:a.b.c?action=delete", "deleteRecord applyWrites listMissingBlobs"),
            (
                "atproto repo:a.b.c?action=create&action=update",
                "createRecord putRecord applyWrites listMissingBlobs",
            ),
            ("atproto blob:image/*", "uploadBlob listMissingBlobs"),
            ("atproto account:repo?action=manage", "importRepo listMissingBlobs"),
            ("atproto account:repo", "listMissingBlobs"),
        ] {
            let named: Vec<_> =
                all.split(' ').filter(|name| allows(scope, &format!("com.atproto.repo.{name}"))).collect();
            assert_eq!(named.join(" "), allowed, "{scope}");
        }
        for (scope, allowed) in [
            ("atproto", false),
            ("atproto repo:*", false),
            ("atproto rpc:app.bsky.feed.getTimeline?aud=*", true),
            ("atproto transition:chat.bsky", true),
            ("atproto transition:generic", true),
        ] {
            assert_eq!(allows(scope, "com.atproto.server.GetServiceAuth"), allowed, "{scope}");
        }
    }
}
