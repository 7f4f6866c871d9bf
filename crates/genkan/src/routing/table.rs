//! The routing table: one row for every method, or family of methods, and what Genkan does with it.
//!
//! The rows are data, and nothing else in the program knows methods by name. A method is added by
//! its row here; if Genkan answers it, by a handler too, which names the row (see `http::xrpc`).

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::LazyLock;

use MethodKind::{Any, Procedure, Query, Subscription};
use Rule::{CallerHome, Target};
use genkan_protocol::jwt::session::Scope;
use genkan_protocol::oauth::scope::{AccountAction, AccountAttribute, Identity, RepoAction};

use super::row::{
    AccountAccess, AppAccess, BodyLimit, Callers, LinkedScope, MethodKind, Parameter, Row, Rule, Weight,
};

/// The row of a method.
///
/// Names are compared without regard to case because hosts do so too: a name in odd letter case
/// must not get another route.
pub(crate) fn row(method: &str) -> &'static Row {
    static BY_NAME: LazyLock<HashMap<FoldedName<'static>, &'static Row, BuildHasherDefault<Fnv>>> =
        LazyLock::new(|| {
            ROWS.iter()
                .filter(|row| !row.method.ends_with('*'))
                .map(|row| (FoldedName(row.method), row))
                .collect()
        });
    // Exact names are most of the traffic: one hash, no allocation. Families are few and are tried
    // in order.
    if let Some(row) = BY_NAME.get(&FoldedName(method)) {
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

/// The row of a method that Genkan answers, found while the program is compiled.
///
/// # Panics
///
/// When no row has this name, or its rule is not [`Rule::Local`]; then the program does not
/// compile.
#[expect(clippy::indexing_slicing, reason = "a constant function cannot use iterators")]
pub(crate) const fn answered(method: &str) -> &'static Row {
    let mut index = 0;
    while index < ROWS.len() {
        let row = &ROWS[index];
        if is_same(row.method, method) {
            assert!(matches!(row.rule, Rule::Local), "the method's row does not say that Genkan answers it");
            return row;
        }
        index += 1;
    }
    panic!("the method has no row in the routing table")
}

/// `==` for constants.
#[expect(clippy::indexing_slicing, reason = "a constant function cannot use iterators")]
const fn is_same(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    if one.len() != other.len() {
        return false;
    }
    let mut index = 0;
    while index < one.len() {
        if one[index] != other[index] {
            return false;
        }
        index += 1;
    }
    true
}

/// Exact names first, then families from narrow to wide.
pub(crate) static ROWS: &[Row] = &[
    // Accounts, sessions and e-mail: Genkan keeps passwords, addresses and sessions for the whole
    // fleet.
    Row::answered("com.atproto.server.createAccount", Procedure, ANYONE),
    Row::answered("com.atproto.server.createSession", Procedure, ANYONE),
    Row::answered("com.atproto.server.refreshSession", Procedure, REFRESH_TOKEN),
    Row::answered("com.atproto.server.deleteSession", Procedure, REFRESH_TOKEN),
    Row::answered("com.atproto.server.getSession", Query, Callers::account(ANY_SESSION, AppAccess::Any)),
    Row::answered("com.atproto.server.createAppPassword", Procedure, Callers::account(FULL, NO_APPS)),
    Row::answered("com.atproto.server.listAppPasswords", Query, Callers::account(STANDARD, NO_APPS)),
    Row::answered("com.atproto.server.revokeAppPassword", Procedure, Callers::account(STANDARD, NO_APPS)),
    Row::answered("com.atproto.server.getAccountInviteCodes", Query, Callers::account(FULL, NO_APPS)),
    Row::answered("com.atproto.server.createInviteCode", Procedure, OPERATOR),
    Row::answered("com.atproto.server.createInviteCodes", Procedure, OPERATOR),
    Row::answered(
        "com.atproto.server.requestEmailConfirmation",
        Procedure,
        Callers::account(STANDARD, MANAGE_EMAIL),
    ),
    Row::answered("com.atproto.server.confirmEmail", Procedure, Callers::account(STANDARD, MANAGE_EMAIL)),
    Row::answered(
        "com.atproto.server.requestEmailUpdate",
        Procedure,
        Callers::account(FULL, NO_EMAIL_CHANGES),
    ),
    Row::answered("com.atproto.server.updateEmail", Procedure, Callers::account(FULL, NO_EMAIL_CHANGES)),
    Row::answered("com.atproto.server.requestPasswordReset", Procedure, ANYONE),
    Row::answered("com.atproto.server.resetPassword", Procedure, ANYONE),
    Row::answered("com.atproto.server.requestAccountDelete", Procedure, Callers::account(FULL, NO_APPS)),
    Row::answered("com.atproto.server.deleteAccount", Procedure, ANYONE),
    Row::answered("com.atproto.server.activateAccount", Procedure, Callers::account(FULL, NO_REACTIVATION)),
    Row::answered(
        "com.atproto.server.deactivateAccount",
        Procedure,
        Callers::even_taken_down(FULL_OR_TAKEN_DOWN, MANAGE_STATUS),
    ),
    Row::answered("com.atproto.server.describeServer", Query, ANYONE),
    // Only the host has the key that signs for the account.
    Row::external("com.atproto.server.getServiceAuth", Query, CallerHome)
        .linked(LinkedScope::Service)
        .alone(),
    // The host reads the account's DID document for it.
    Row::forwarded("com.atproto.server.checkAccountStatus", Query, CallerHome).helped(),
    Row::refused(
        "com.atproto.server.reserveSigningKey",
        Procedure,
        "Genkan reserves a signing key when it creates an account; ask the host itself for another one",
    ),
    // Handles and PLC operations: Genkan has the rotation key and publishes every change itself.
    Row::answered("com.atproto.identity.resolveHandle", Query, ANYONE),
    Row::answered("com.atproto.identity.updateHandle", Procedure, Callers::account(STANDARD, CHANGE_HANDLE)),
    Row::answered(
        "com.atproto.identity.requestPlcOperationSignature",
        Procedure,
        Callers::even_taken_down(FULL_OR_TAKEN_DOWN, CHANGE_IDENTITY),
    ),
    Row::answered(
        "com.atproto.identity.signPlcOperation",
        Procedure,
        Callers::even_taken_down(FULL_OR_TAKEN_DOWN, CHANGE_IDENTITY),
    ),
    Row::forwarded("com.atproto.identity.getRecommendedDidCredentials", Query, CallerHome).alone(),
    // The host waits for the PLC directory.
    Row::forwarded("com.atproto.identity.submitPlcOperation", Procedure, CallerHome).helped(),
    // The input names the service that the host calls.
    Row::forwarded("app.bsky.notification.registerPush", Procedure, CallerHome).addressed(),
    Row::forwarded("app.bsky.notification.unregisterPush", Procedure, CallerHome).addressed(),
    Row::not_yet(
        "com.atproto.admin.updateAccountHandle",
        Procedure,
        OPERATOR,
        "Genkan does not answer this method yet; the account itself changes its handle with com.atproto.identity.updateHandle",
    ),
    // Operators' tools work on accounts here. What Genkan does not have, it refuses with a hint,
    // since forwarding would need the admin password of a host.
    Row::answered("com.atproto.admin.updateSubjectStatus", Procedure, OPERATOR),
    Row::answered("com.atproto.admin.deleteAccount", Procedure, OPERATOR),
    Row::answered("com.atproto.admin.getAccountInfo", Query, OPERATOR),
    Row::answered("com.atproto.admin.getAccountInfos", Query, OPERATOR),
    Row::not_yet(
        "com.atproto.admin.getSubjectStatus",
        Query,
        OPERATOR,
        "Genkan does not answer this method yet; ask the account's host",
    ),
    Row::answered("com.atproto.admin.sendEmail", Procedure, SEND_EMAIL),
    Row::answered("com.atproto.admin.updateAccountEmail", Procedure, OPERATOR_OR_HOST),
    Row::answered("com.atproto.admin.updateAccountPassword", Procedure, OPERATOR_OR_HOST),
    Row::not_yet(
        "com.atproto.admin.disableAccountInvites",
        Procedure,
        OPERATOR,
        "Genkan does not answer this method yet; com.atproto.admin.disableInviteCodes disables the codes of an account",
    ),
    Row::not_yet(
        "com.atproto.admin.enableAccountInvites",
        Procedure,
        OPERATOR,
        "Genkan does not answer this method yet; com.atproto.server.createInviteCodes creates codes for an account",
    ),
    Row::answered("com.atproto.admin.disableInviteCodes", Procedure, OPERATOR),
    Row::answered("com.atproto.admin.getInviteCodes", Query, OPERATOR),
    // `com.atproto.temp.*` may change or disappear. Only those rows are answered that published
    // clients and hosts call.
    Row::answered("com.atproto.temp.checkSignupQueue", Query, SIGNUP_QUEUE),
    Row::answered("com.atproto.temp.dereferenceScope", Query, ANYONE),
    Row::answered("com.atproto.temp.checkHandleAvailability", Query, ANYONE),
    Row::not_yet(
        "com.atproto.temp.requestPhoneVerification",
        Procedure,
        ANYONE,
        "Genkan does not verify phone numbers; sign up without one",
    ),
    Row::not_yet(
        "com.atproto.temp.revokeAccountCredentials",
        Procedure,
        OPERATOR,
        "Genkan does not answer this method yet; com.atproto.admin.updateAccountPassword ends every session of an account",
    ),
    Row::not_yet(
        "com.atproto.temp.addReservedHandle",
        Procedure,
        OPERATOR,
        "Genkan does not answer this method yet; the operator lists reserved handles in GENKAN_RESERVED_HANDLES",
    ),
    // Writes go to the caller's own repository, so the caller and not the input decides the host.
    Row::external("com.atproto.repo.applyWrites", Procedure, CallerHome)
        .linked(LinkedScope::SomeWrite)
        .alone(),
    Row::external("com.atproto.repo.createRecord", Procedure, CallerHome)
        .linked(LinkedScope::Writes(&[RepoAction::Create]))
        .alone(),
    Row::external("com.atproto.repo.putRecord", Procedure, CallerHome)
        .linked(LinkedScope::Writes(&[RepoAction::Create, RepoAction::Update]))
        .alone(),
    Row::external("com.atproto.repo.deleteRecord", Procedure, CallerHome)
        .linked(LinkedScope::Writes(&[RepoAction::Delete]))
        .alone(),
    Row::external("com.atproto.repo.uploadBlob", Procedure, CallerHome)
        // A blob is a file, and larger than any JSON input.
        .body(BodyLimit::Upload)
        .weight(Weight::Upload)
        .linked(LinkedScope::Blob)
        .helped(),
    Row::external("com.atproto.repo.importRepo", Procedure, CallerHome)
        .body(BodyLimit::Import)
        .linked(LinkedScope::Import)
        .helped(),
    Row::external("com.atproto.repo.listMissingBlobs", Query, CallerHome).alone(),
    // Reads of one account go to that account's host, for every caller.
    // A host that does not have the account asks its app view for the record, and it reads the DID
    // document for the description.
    Row::external("com.atproto.repo.getRecord", Query, REPO).helped(),
    Row::external("com.atproto.repo.listRecords", Query, REPO).alone(),
    Row::external("com.atproto.repo.describeRepo", Query, REPO).helped(),
    Row::external("com.atproto.sync.getRepo", Query, DID).weight(Weight::Export).alone(),
    Row::external("com.atproto.sync.getRecord", Query, DID).alone(),
    Row::external("com.atproto.sync.getBlob", Query, DID).file().alone(),
    Row::external("com.atproto.sync.listBlobs", Query, DID).alone(),
    Row::external("com.atproto.sync.getLatestCommit", Query, DID).alone(),
    Row::external("com.atproto.sync.getRepoStatus", Query, DID).alone(),
    Row::external("com.atproto.sync.getBlocks", Query, DID).alone(),
    Row::external("com.atproto.sync.getHead", Query, DID).alone(),
    Row::external("com.atproto.sync.getCheckout", Query, DID).alone(),
    // Without an account in the query, the caller's own host answers for itself.
    Row::external("com.atproto.sync.listRepos", Query, CallerHome).alone(),
    Row::external("com.atproto.sync.listReposByCollection", Query, CallerHome),
    Row::external("com.atproto.sync.requestCrawl", Procedure, CallerHome),
    Row::external("com.atproto.sync.notifyOfUpdate", Procedure, CallerHome),
    Row::external("com.atproto.sync.listHosts", Query, CallerHome),
    Row::external("com.atproto.sync.getHostStatus", Query, CallerHome),
    Row::refused(
        "com.atproto.sync.subscribeRepos",
        Subscription,
        "Subscribe at the account's own host, or at a relay",
    ),
    Row::refused("com.atproto.label.subscribeLabels", Subscription, "Subscribe at the labeler itself"),
    // The families come last, and the first that fits decides.
    Row::refused("com.atproto.admin.*", Any, "Genkan does not forward admin methods; call the host itself"),
    Row::external("com.atproto.repo.*", Any, CallerHome),
    Row::external("com.atproto.sync.*", Any, CallerHome),
    Row::forwarded("*", Any, CallerHome),
];

const REPO: Rule = Target { parameter: Parameter::Repo, self_read: false };
const DID: Rule = Target { parameter: Parameter::Did, self_read: true };

const ANYONE: Callers = Callers::Anyone;
const REFRESH_TOKEN: Callers = Callers::RefreshToken;
const OPERATOR: Callers = Callers::Operator;
const OPERATOR_OR_HOST: Callers = Callers::OperatorOrHost;
/// No session, whatever its scope: only the recipient's host, for its moderators.
const SEND_EMAIL: Callers =
    Callers::OperatorOrAccount(AccountAccess { sessions: &[], apps: NO_APPS, hosts: true, taken_down: true });
/// Hosts pass the client's own token on.
const SIGNUP_QUEUE: Callers =
    Callers::Account(AccountAccess { sessions: ANY_SESSION, apps: NO_APPS, hosts: false, taken_down: false });

/// Sessions opened with the account's own password.
const FULL: &[Scope] = &[Scope::Access];
/// Sessions opened with an app password too.
const STANDARD: &[Scope] = &[Scope::Access, Scope::AppPassPrivileged, Scope::AppPass];
/// Sessions that wait for admission too.
const ANY_SESSION: &[Scope] = &[Scope::Access, Scope::AppPassPrivileged, Scope::AppPass, Scope::SignupQueued];
/// Sessions opened with the account's own password, also of an account that is taken down.
const FULL_OR_TAKEN_DOWN: &[Scope] = &[Scope::Access, Scope::Takendown];

const NO_APPS: AppAccess = AppAccess::Never("OAuth credentials are not supported for this endpoint");
const NO_EMAIL_CHANGES: AppAccess =
    AppAccess::Never("Use the account manager interface to update email address associated with an account");
const NO_REACTIVATION: AppAccess = AppAccess::Never(
    "Account reactivation is not available with OAuth credentials. Sign in to your account management page to reactivate.",
);
const MANAGE_EMAIL: AppAccess = AppAccess::Account(AccountAttribute::Email, AccountAction::Manage);
const MANAGE_STATUS: AppAccess = AppAccess::Account(AccountAttribute::Status, AccountAction::Manage);
const CHANGE_HANDLE: AppAccess = AppAccess::Identity(Identity::Handle);
const CHANGE_IDENTITY: AppAccess = AppAccess::Identity(Identity::Any);

/// A name that equals and hashes like itself in other letter cases.
#[derive(Debug)]
struct FoldedName<'a>(&'a str);

impl PartialEq for FoldedName<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(other.0)
    }
}

impl Eq for FoldedName<'_> {}

impl std::hash::Hash for FoldedName<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for byte in self.0.bytes() {
            state.write_u8(byte.to_ascii_lowercase());
        }
    }
}

/// FNV-1a. The table is fixed, so its keys cannot be chosen to collide.
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
    fn a_method_without_a_row_falls_to_its_family() {
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
}
