//! `[links]`: linked accounts, which are accounts on external PDSes.

use super::problem::Findings;
use super::section::section;

section! {
    /// Linked accounts: accounts on external PDSes. Users sign in at their own server, and apps act
    /// for them through Genkan.
    pub struct Links = "links" {
        /// Whether users may sign in with accounts on external PDSes.
        enabled: bool { env: "GENKAN_LINKS", default: "true" },
        /// Name of this service on the consent pages of other servers. Default: `name` of
        /// `[service]`.
        client_name: Option<String> { env: "GENKAN_LINK_CLIENT_NAME" },
        /// Permissions in the client metadata that other servers read: those that most apps
        /// request. A request for other permissions uses a client id of its own.
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
            found.add("GENKAN_LINK_SCOPE", "does not contain atproto", "add atproto at the beginning");
        }
        if let Some(wrong) =
            values.iter().find(|value| value.parse::<genkan_protocol::oauth::scope::Scope>().is_err())
        {
            found.add(
                "GENKAN_LINK_SCOPE",
                format!("contains {wrong:?}, which is not a permission"),
                "separate permissions with one space each",
            );
        }
    }
}
