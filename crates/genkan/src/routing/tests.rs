//! Who may call each method that Genkan answers, written out.

use super::table::ROWS;
use super::{AccountAccess, AppAccess, Callers, Row, Rule};

/// The callers of every method that Genkan answers, or will answer. A line is a method and its
/// callers, separated by ` | `:
///
/// * `anyone`, `refresh token`, `operator`, `host's admin password`
/// * `session` and the scopes of sessions, without `com.atproto.`
/// * `app` and the scope that its grant must hold, if any beyond `atproto`
/// * `host`, by service auth
/// * `taken down`: the callers before it may call it even if the account is taken down
///
/// The list repeats the table on purpose: to let more callers in, change both.
const CALLERS: &str = "
    com.atproto.server.createAccount | anyone
    com.atproto.server.createSession | anyone
    com.atproto.server.refreshSession | refresh token
    com.atproto.server.deleteSession | refresh token
    com.atproto.server.getSession | session access appPassPrivileged appPass signupQueued | app | host
    com.atproto.server.createAppPassword | session access | host
    com.atproto.server.listAppPasswords | session access appPassPrivileged appPass | host
    com.atproto.server.revokeAppPassword | session access appPassPrivileged appPass | host
    com.atproto.server.getAccountInviteCodes | session access | host
    com.atproto.server.createInviteCode | operator
    com.atproto.server.createInviteCodes | operator
    com.atproto.server.requestEmailConfirmation | session access appPassPrivileged appPass | app account:email?action=manage | host
    com.atproto.server.confirmEmail | session access appPassPrivileged appPass | app account:email?action=manage | host
    com.atproto.server.requestEmailUpdate | session access | host
    com.atproto.server.updateEmail | session access | host
    com.atproto.server.requestPasswordReset | anyone
    com.atproto.server.resetPassword | anyone
    com.atproto.server.requestAccountDelete | session access | host
    com.atproto.server.deleteAccount | anyone
    com.atproto.server.activateAccount | session access | host
    com.atproto.server.deactivateAccount | session access takendown | app account:status?action=manage | host | taken down
    com.atproto.server.describeServer | anyone
    com.atproto.identity.resolveHandle | anyone
    com.atproto.identity.updateHandle | session access appPassPrivileged appPass | app identity:handle | host
    com.atproto.identity.requestPlcOperationSignature | session access takendown | app identity:* | host | taken down
    com.atproto.identity.signPlcOperation | session access takendown | app identity:* | host | taken down
    com.atproto.admin.updateAccountHandle | operator
    com.atproto.admin.updateSubjectStatus | operator
    com.atproto.admin.deleteAccount | operator
    com.atproto.admin.getAccountInfo | operator
    com.atproto.admin.getAccountInfos | operator
    com.atproto.admin.getSubjectStatus | operator
    com.atproto.admin.sendEmail | operator | host | taken down
    com.atproto.admin.updateAccountEmail | operator | host's admin password
    com.atproto.admin.updateAccountPassword | operator | host's admin password
    com.atproto.admin.disableAccountInvites | operator
    com.atproto.admin.enableAccountInvites | operator
    com.atproto.admin.disableInviteCodes | operator
    com.atproto.admin.getInviteCodes | operator
    com.atproto.temp.checkSignupQueue | session access appPassPrivileged appPass signupQueued
    com.atproto.temp.dereferenceScope | anyone
    com.atproto.temp.checkHandleAvailability | anyone
    com.atproto.temp.requestPhoneVerification | anyone
    com.atproto.temp.revokeAccountCredentials | operator
    com.atproto.temp.addReservedHandle | operator
";

#[test]
fn each_method_that_genkan_answers_admits_these_callers_and_no_others() {
    let written: Vec<&str> = CALLERS.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let is_answered = |row: &&Row| matches!(row.rule, Rule::Local | Rule::NotYet(_));
    let table: Vec<String> = ROWS.iter().filter(is_answered).map(line).collect();
    for line in &table {
        assert!(written.contains(&line.as_str()), "the table says, and this list does not: {line}");
    }
    assert_eq!(written, table, "this list has a line that the table lacks, or another order");
}

/// A PDS decides who may call what it answers. Genkan would not check a caller in such a row.
#[test]
fn a_row_that_genkan_does_not_answer_names_no_callers() {
    for row in ROWS.iter().filter(|row| !matches!(row.rule, Rule::Local | Rule::NotYet(_))) {
        assert_eq!(row.callers, Callers::Anyone, "{}", row.method);
    }
}

fn line(row: &Row) -> String {
    let mut words = vec![row.method.to_owned()];
    match row.callers {
        Callers::Anyone => words.push("anyone".to_owned()),
        Callers::RefreshToken => words.push("refresh token".to_owned()),
        Callers::Account(access) => words.extend(ways(access)),
        Callers::Operator => words.push("operator".to_owned()),
        Callers::OperatorOrHost => words.extend(["operator", "host's admin password"].map(str::to_owned)),
        Callers::OperatorOrAccount(access) => {
            words.push("operator".to_owned());
            words.extend(ways(access));
        }
    }
    words.join(" | ")
}

fn ways(access: AccountAccess) -> Vec<String> {
    let AccountAccess { sessions, apps, hosts, taken_down } = access;
    let mut ways = Vec::new();
    if !sessions.is_empty() {
        let scopes = sessions.iter().map(|scope| scope.as_str().trim_start_matches("com.atproto."));
        ways.push(format!("session {}", scopes.collect::<Vec<_>>().join(" ")));
    }
    match apps {
        AppAccess::Never(_) => {}
        AppAccess::Any => ways.push("app".to_owned()),
        AppAccess::Account(..) | AppAccess::Identity(_) => {
            ways.push(format!("app {}", apps.scope().unwrap_or_default()));
        }
    }
    ways.extend(hosts.then(|| "host".to_owned()));
    ways.extend(taken_down.then(|| "taken down".to_owned()));
    ways
}
