//! `[links]`: accounts that live elsewhere.

use super::key::section;
use super::problem::Findings;

section! {
    /// Accounts that live elsewhere. People sign in at their own servers, and apps act for them through Genkan.
    pub struct Links = "links" {
        /// Whether people may sign in with accounts that live elsewhere.
        enabled: bool { env: "GENKAN_LINKS", default: "true" },
        /// What other servers call this one when they ask people for their consent. None: the name of the service.
        client_name: Option<String> { env: "GENKAN_LINK_CLIENT_NAME" },
        /// The permissions that most apps ask for: those of our client metadata document at other servers. What an app
        /// asks beyond them is asked under a name of its own.
        scope: String {
            env: "GENKAN_LINK_SCOPE",
            default: "atproto transition:generic transition:chat.bsky transition:email account:repo?action=manage"
        },
    }
}

impl Links {
    fn check(&self, found: &mut Findings) {
        let values: Vec<&str> = self.scope.split(' ').collect();
        if !values.contains(&"atproto") {
            found.add("GENKAN_LINK_SCOPE", "lacks atproto", "begin it with atproto");
        }
        if let Some(wrong) =
            values.iter().find(|value| value.parse::<genkan_protocol::oauth::scope::Scope>().is_err())
        {
            found.add(
                "GENKAN_LINK_SCOPE",
                format!("has {wrong:?}, which is no permission"),
                "write permissions with one space between",
            );
        }
    }
}
