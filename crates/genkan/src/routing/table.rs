//! One row for every method, or family of methods, and what Genkan does with it.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::LazyLock;

use MethodKind::{Any, Procedure, Query, Subscription};
use Rule::{CallerHome, Local, NotHere, Target};

/// What Genkan does with one method, or with all whose names begin alike.
#[derive(Debug)]
pub(crate) struct Row {
    /// An NSID; with a `*` at its end, the beginning of many.
    pub(crate) method: &'static str,
    pub(crate) kind: MethodKind,
    pub(crate) rule: Rule,
}

impl Row {
    /// Whether it is carried for accounts that live elsewhere as well.
    pub(crate) fn is_carried(&self) -> bool {
        ["com.atproto.repo.", "com.atproto.sync.", "com.atproto.server.getServiceAuth"]
            .iter()
            .any(|family| self.method.starts_with(family))
    }
}

/// How a method is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MethodKind {
    /// By `GET` or `HEAD`.
    Query,
    /// By `POST`.
    Procedure,
    /// By a WebSocket.
    Subscription,
    /// Not known to us: by any of these verbs.
    Any,
}

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Genkan itself.
    Local,
    /// The home of the caller, by the caller's own token.
    CallerHome,
    /// The home of the account that the parameter names, without a credential.
    Target {
        parameter: Parameter,
        /// Whether a caller who reads of themselves keeps their token, so that owners of deactivated and
        /// taken-down accounts can still take their data out.
        self_read: bool,
    },
    /// Nobody, and the message says where to go.
    NotHere(&'static str),
}

/// The query parameter that names a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parameter {
    /// A DID or a handle.
    Repo,
    /// A DID.
    Did,
}

impl Parameter {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Repo => "repo",
            Self::Did => "did",
        }
    }
}

/// The row of a method, its name compared without regard to case: hosts do so too, and a name in odd letters must
/// not leave by another route.
pub(crate) fn row(method: &str) -> &'static Row {
    static BY_NAME: LazyLock<HashMap<Folded<'static>, &'static Row, BuildHasherDefault<Fnv>>> =
        LazyLock::new(|| {
            ROWS.iter()
                .filter(|row| !row.method.ends_with('*'))
                .map(|row| (Folded(row.method), row))
                .collect()
        });
    if let Some(row) = BY_NAME.get(&Folded(method)) {
        return row;
    }
    let begins = |family: &str| {
        method
            .as_bytes()
            .get(..family.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(family.as_bytes()))
    };
    ROWS.iter()
        .filter_map(|row| row.method.strip_suffix('*').map(|family| (family, row)))
        .find(|(family, _)| begins(family))
        .map(|(_, row)| row)
        .expect("the last row's family is every method")
}

/// The table as a page of documentation.
pub fn markdown() -> String {
    let mut page = String::from(INTRODUCTION);
    for row in ROWS {
        let kind = match row.kind {
            Query => "query",
            Procedure => "procedure",
            Subscription => "subscription",
            Any => "any",
        };
        let rule = match row.rule {
            Local => "Genkan answers".to_owned(),
            CallerHome => "the caller's PDS, in the caller's name".to_owned(),
            Target { parameter, self_read } => format!(
                "the PDS of `{}`, without credentials{}",
                parameter.as_str(),
                if self_read {
                    "; in the caller's name when it is their own account and on a host of the fleet"
                } else {
                    ""
                }
            ),
            NotHere(message) => format!("501: {message}"),
        };
        writeln!(page, "| `{}` | {kind} | {rule} |", row.method).expect("writing to a string never fails");
    }
    page
}

const INTRODUCTION: &str = "\
# Routing

<!-- Printed by `genkan docs routing` from the table in `crates/genkan/src/routing/table.rs`. -->

Which methods under `/xrpc/` Genkan answers, and where it carries the others. The first row that fits counts; a name
that ends in `*` stands for all that begin so. Names are compared without regard to case and carried as they came.

A query is called by `GET` or `HEAD`, a procedure by `POST`; another verb is 400 `InvalidRequest`. Where a row names
the caller's PDS, a request without a token is 401 `AuthMissing`. Where it names a parameter, that parameter must be
there exactly once, and its account may live anywhere: on a host of the fleet, or at any PDS in the world.

A caller whose account lives elsewhere and who signed in through Genkan is carried to their own PDS for what begins with
`com.atproto.repo.` or `com.atproto.sync.`, and for `com.atproto.server.getServiceAuth`. Everything else is 501
`MethodNotImplemented` for them: it is to be called at their PDS, or at a public AppView.

| method | kind | who answers |
|---|---|---|
";

/// By exact names first, then families from narrow to wide.
pub(crate) static ROWS: &[Row] = &[
    row_of("com.atproto.server.createAccount", Procedure, Local),
    row_of("com.atproto.server.createSession", Procedure, Local),
    row_of("com.atproto.server.refreshSession", Procedure, Local),
    row_of("com.atproto.server.deleteSession", Procedure, Local),
    row_of("com.atproto.server.getSession", Query, Local),
    row_of("com.atproto.server.createAppPassword", Procedure, Local),
    row_of("com.atproto.server.listAppPasswords", Query, Local),
    row_of("com.atproto.server.revokeAppPassword", Procedure, Local),
    row_of("com.atproto.server.getAccountInviteCodes", Query, Local),
    row_of("com.atproto.server.createInviteCode", Procedure, Local),
    row_of("com.atproto.server.createInviteCodes", Procedure, Local),
    row_of("com.atproto.server.requestEmailConfirmation", Procedure, Local),
    row_of("com.atproto.server.confirmEmail", Procedure, Local),
    row_of("com.atproto.server.requestEmailUpdate", Procedure, Local),
    row_of("com.atproto.server.updateEmail", Procedure, Local),
    row_of("com.atproto.server.requestPasswordReset", Procedure, Local),
    row_of("com.atproto.server.resetPassword", Procedure, Local),
    row_of("com.atproto.server.requestAccountDelete", Procedure, Local),
    row_of("com.atproto.server.deleteAccount", Procedure, Local),
    row_of("com.atproto.server.activateAccount", Procedure, Local),
    row_of("com.atproto.server.deactivateAccount", Procedure, Local),
    row_of("com.atproto.server.describeServer", Query, Local),
    row_of("com.atproto.server.getServiceAuth", Query, CallerHome),
    row_of("com.atproto.server.checkAccountStatus", Query, CallerHome),
    row_of(
        "com.atproto.server.reserveSigningKey",
        Procedure,
        NotHere("Signing keys are reserved by Genkan when an account is made; ask a host itself for another"),
    ),
    row_of("com.atproto.identity.resolveHandle", Query, Local),
    row_of("com.atproto.identity.updateHandle", Procedure, Local),
    row_of("com.atproto.identity.requestPlcOperationSignature", Procedure, Local),
    row_of("com.atproto.identity.signPlcOperation", Procedure, Local),
    row_of("com.atproto.identity.getRecommendedDidCredentials", Query, CallerHome),
    row_of("com.atproto.identity.submitPlcOperation", Procedure, CallerHome),
    row_of("com.atproto.admin.updateAccountHandle", Procedure, Local),
    row_of("com.atproto.admin.updateSubjectStatus", Procedure, Local),
    row_of("com.atproto.admin.deleteAccount", Procedure, Local),
    row_of("com.atproto.admin.getAccountInfo", Query, Local),
    row_of("com.atproto.admin.getAccountInfos", Query, Local),
    row_of("com.atproto.admin.getSubjectStatus", Query, Local),
    row_of("com.atproto.admin.sendEmail", Procedure, Local),
    row_of("com.atproto.admin.updateAccountEmail", Procedure, Local),
    row_of("com.atproto.admin.updateAccountPassword", Procedure, Local),
    row_of("com.atproto.admin.disableAccountInvites", Procedure, Local),
    row_of("com.atproto.admin.enableAccountInvites", Procedure, Local),
    row_of("com.atproto.admin.disableInviteCodes", Procedure, Local),
    row_of("com.atproto.admin.getInviteCodes", Query, Local),
    row_of("com.atproto.temp.checkSignupQueue", Query, Local),
    row_of("com.atproto.temp.dereferenceScope", Query, Local),
    row_of("com.atproto.temp.checkHandleAvailability", Query, Local),
    row_of("com.atproto.temp.requestPhoneVerification", Procedure, Local),
    row_of("com.atproto.temp.revokeAccountCredentials", Procedure, Local),
    row_of("com.atproto.temp.addReservedHandle", Procedure, Local),
    row_of("com.atproto.repo.applyWrites", Procedure, CallerHome),
    row_of("com.atproto.repo.createRecord", Procedure, CallerHome),
    row_of("com.atproto.repo.putRecord", Procedure, CallerHome),
    row_of("com.atproto.repo.deleteRecord", Procedure, CallerHome),
    row_of("com.atproto.repo.uploadBlob", Procedure, CallerHome),
    row_of("com.atproto.repo.importRepo", Procedure, CallerHome),
    row_of("com.atproto.repo.listMissingBlobs", Query, CallerHome),
    row_of("com.atproto.repo.getRecord", Query, REPO),
    row_of("com.atproto.repo.listRecords", Query, REPO),
    row_of("com.atproto.repo.describeRepo", Query, REPO),
    row_of("com.atproto.sync.getRepo", Query, DID),
    row_of("com.atproto.sync.getRecord", Query, DID),
    row_of("com.atproto.sync.getBlob", Query, DID),
    row_of("com.atproto.sync.listBlobs", Query, DID),
    row_of("com.atproto.sync.getLatestCommit", Query, DID),
    row_of("com.atproto.sync.getRepoStatus", Query, DID),
    row_of("com.atproto.sync.getBlocks", Query, DID),
    row_of("com.atproto.sync.getHead", Query, DID),
    row_of("com.atproto.sync.getCheckout", Query, DID),
    row_of("com.atproto.sync.listRepos", Query, CallerHome),
    row_of("com.atproto.sync.listReposByCollection", Query, CallerHome),
    row_of("com.atproto.sync.requestCrawl", Procedure, CallerHome),
    row_of("com.atproto.sync.notifyOfUpdate", Procedure, CallerHome),
    row_of("com.atproto.sync.listHosts", Query, CallerHome),
    row_of("com.atproto.sync.getHostStatus", Query, CallerHome),
    row_of(
        "com.atproto.sync.subscribeRepos",
        Subscription,
        NotHere("Subscribe at the account's own host, or at a relay"),
    ),
    row_of("com.atproto.label.subscribeLabels", Subscription, NotHere("Subscribe at the labeler itself")),
    row_of(
        "com.atproto.admin.*",
        Any,
        NotHere("Administration is not carried to hosts; ask the host itself"),
    ),
    row_of("com.atproto.repo.*", Any, CallerHome),
    row_of("com.atproto.sync.*", Any, CallerHome),
    row_of("*", Any, CallerHome),
];

const REPO: Rule = Target { parameter: Parameter::Repo, self_read: false };
const DID: Rule = Target { parameter: Parameter::Did, self_read: true };

const fn row_of(method: &'static str, kind: MethodKind, rule: Rule) -> Row {
    Row { method, kind, rule }
}

/// A name that equals and hashes like itself in other letter cases.
#[derive(Debug)]
struct Folded<'a>(&'a str);

impl PartialEq for Folded<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(other.0)
    }
}

impl Eq for Folded<'_> {}

impl std::hash::Hash for Folded<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for byte in self.0.bytes() {
            state.write_u8(byte.to_ascii_lowercase());
        }
    }
}

/// FNV-1a: the table is fixed, so nobody can choose keys that collide in it.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_has_one_row_in_any_letter_case() {
        for expected in ROWS.iter().filter(|row| !row.method.ends_with('*')) {
            for spelling in [
                expected.method.to_owned(),
                expected.method.to_ascii_uppercase(),
                expected.method.to_lowercase(),
            ] {
                assert!(std::ptr::eq(row(&spelling), expected), "{spelling}");
            }
            assert_eq!(ROWS.iter().filter(|row| row.method.eq_ignore_ascii_case(expected.method)).count(), 1);
        }
    }

    #[test]
    fn what_has_no_row_of_its_own_falls_to_its_family() {
        for (method, family) in [
            ("com.atproto.admin.searchAccounts", "com.atproto.admin.*"),
            ("com.atproto.ADMIN.searchAccounts", "com.atproto.admin.*"),
            ("com.atproto.repo.somethingNew", "com.atproto.repo.*"),
            ("com.atproto.sync.somethingNew", "com.atproto.sync.*"),
            ("com.atproto.server.somethingNew", "*"),
            ("com.atproto.moderation.createReport", "*"),
            ("app.bsky.feed.getTimeline", "*"),
            ("chat.bsky.convo.getLog", "*"),
        ] {
            assert_eq!(row(method).method, family, "{method}");
        }
    }

    #[test]
    fn the_page_has_a_line_for_each_row() {
        let page = markdown();
        for row in ROWS {
            assert!(page.contains(&format!("| `{}` |", row.method)), "{}", row.method);
        }
        assert!(page.contains(
            "| `com.atproto.sync.getBlob` | query | the PDS of `did`, without credentials; in the"
        ));
        assert!(page.contains("| `com.atproto.sync.subscribeRepos` | subscription | 501: Subscribe at"));
    }
}
