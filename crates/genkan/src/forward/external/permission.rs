//! What a linked account's grant must allow before its call is forwarded.
//!
//! Only what the method's name shows is checked here. Genkan does not read bodies: the account's
//! own PDS knows the same scope and checks each body against it.

use genkan_protocol::oauth::scope::{AccountAction, AccountAttribute, RepoAction, Scope, Scopes};

use crate::routing::LinkedScope;

/// Whether a scope allows a method with this requirement.
pub(in crate::forward) fn allows(scope: &str, needed: LinkedScope) -> bool {
    // Parsed for each call. The text is short, and a parsed copy would have to be kept with every
    // token.
    let scopes = Scopes::parse(scope);
    // Without `atproto` a token stands for no account at all (the atproto OAuth profile).
    if !scopes.contains("atproto") {
        return false;
    }
    let any = |allows: &dyn Fn(&Scope) -> bool| scopes.iter().any(|(_, scope)| allows(scope));
    let writes = |action: &RepoAction| {
        any(&|scope| match scope {
            Scope::TransitionGeneric => true,
            Scope::Repo(repo) => repo.actions.contains(action),
            _ => false,
        })
    };
    match needed {
        LinkedScope::Any => true,
        LinkedScope::Writes(actions) => actions.iter().all(writes),
        // `applyWrites` names its actions in the body, so any of them is enough here.
        LinkedScope::SomeWrite => any(&|scope| matches!(scope, Scope::TransitionGeneric | Scope::Repo(_))),
        LinkedScope::Blob => any(&|scope| matches!(scope, Scope::TransitionGeneric | Scope::Blob(_))),
        LinkedScope::Import => scopes.allows_account(AccountAttribute::Repo, AccountAction::Manage),
        LinkedScope::Service => {
            any(&|scope| matches!(scope, Scope::TransitionGeneric | Scope::TransitionChat | Scope::Rpc(_)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::table;

    #[test]
    fn two_families_and_one_method_are_carried() {
        for method in [
            "com.atproto.repo.createRecord",
            "com.atproto.repo.somethingNew",
            "COM.ATPROTO.SYNC.listRepos",
            "com.atproto.server.getServiceAuth",
            "com.atproto.server.GETserviceAUTH",
        ] {
            assert!(table::row(method).external, "{method}");
        }
        for method in [
            "com.atproto.server.getSession",
            "com.atproto.identity.resolveHandle",
            "app.bsky.feed.getTimeline",
            "com.atproto.repository.x",
            "com.atproto.server.getServiceAuthentication",
            "",
        ] {
            assert!(!table::row(method).external, "{method}");
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
            let named: Vec<_> = all
                .split(' ')
                .filter(|name| allows(scope, table::row(&format!("com.atproto.repo.{name}")).linked_scope))
                .collect();
            assert_eq!(named.join(" "), allowed, "{scope}");
        }
        for (scope, allowed) in [
            ("atproto", false),
            ("atproto repo:*", false),
            ("atproto rpc:app.bsky.feed.getTimeline?aud=*", true),
            ("atproto transition:chat.bsky", true),
            ("atproto transition:generic", true),
        ] {
            assert_eq!(
                allows(scope, table::row("com.atproto.server.GetServiceAuth").linked_scope),
                allowed,
                "{scope}"
            );
        }
    }
}
