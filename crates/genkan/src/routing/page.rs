//! The routing table as a page of documentation, `docs/routing.md`.

use std::fmt::Write as _;

use genkan_protocol::jwt::session::Scope;
use genkan_protocol::oauth::scope::RepoAction;

use super::row::{AccountAccess, AppAccess, BodyLimit, Callers, LinkedScope, MethodKind, Row, Rule, Weight};
use super::table::ROWS;

/// The table as a page of documentation: a table for each of the ways in which methods are treated.
pub(crate) fn markdown() -> String {
    let mut page = String::from(INTRODUCTION);
    table(&mut page, ANSWERED, |row| matches!(row.rule, Rule::Local).then(|| answered(row)));
    table(&mut page, NOT_YET, |row| match row.rule {
        Rule::NotYet(message) => Some(vec![callers(row.callers).others, message.to_owned()]),
        _ => None,
    });
    table(&mut page, FORWARDED, forwarded);
    table(&mut page, REFUSED, |row| match row.rule {
        Rule::NotHere(message) => Some(vec![message.to_owned()]),
        _ => None,
    });
    page
}

/// A heading with the rows for which there are columns, after the method and its kind.
fn table(page: &mut String, heading: &str, columns: impl Fn(&Row) -> Option<Vec<String>>) {
    page.push_str(heading);
    for row in ROWS {
        let Some(columns) = columns(row) else { continue };
        writeln!(page, "| `{}` | {} | {} |", row.method, kind(row.kind), columns.join(" | "))
            .expect("writing to a string never fails");
    }
}

const fn kind(kind: MethodKind) -> &'static str {
    match kind {
        MethodKind::Query => "query",
        MethodKind::Procedure => "procedure",
        MethodKind::Subscription => "subscription",
        MethodKind::Any => "any",
    }
}

fn answered(row: &Row) -> Vec<String> {
    let CallerColumns { sessions, apps, others, taken_down } = callers(row.callers);
    vec![sessions, apps, others, taken_down.to_owned(), body_limit(row).to_owned()]
}

/// Who may call a method, in the columns of the page.
#[derive(Default)]
struct CallerColumns {
    sessions: String,
    apps: String,
    others: String,
    taken_down: &'static str,
}

fn callers(callers: Callers) -> CallerColumns {
    let others = |words: &str| CallerColumns { others: words.to_owned(), ..CallerColumns::default() };
    match callers {
        Callers::Anyone => others("everyone"),
        Callers::RefreshToken => others("a refresh token"),
        Callers::Operator => others("the operator"),
        Callers::OperatorOrHost => others("the operator; the account's host, by its admin password"),
        Callers::Account(access) => account(access, None),
        Callers::OperatorOrAccount(access) => account(access, Some("the operator")),
    }
}

fn account(access: AccountAccess, operator: Option<&str>) -> CallerColumns {
    let sessions: Vec<&str> = access.sessions.iter().copied().map(session).collect();
    let host = access.hosts.then_some("the account's host, by service auth");
    let others: Vec<&str> = operator.into_iter().chain(host).collect();
    CallerColumns {
        sessions: if sessions.is_empty() { "none".to_owned() } else { sessions.join(", ") },
        apps: match access.apps {
            AppAccess::Any => "all".to_owned(),
            AppAccess::Never(_) => "none".to_owned(),
            AppAccess::Account(..) | AppAccess::Identity(_) => {
                access.apps.scope().map(|scope| format!("with `{scope}`")).unwrap_or_default()
            }
        },
        others: others.join("; "),
        taken_down: if access.taken_down { "may call it" } else { "401" },
    }
}

const fn session(scope: Scope) -> &'static str {
    match scope {
        Scope::Access => "full",
        Scope::AppPass => "app password",
        Scope::AppPassPrivileged => "privileged app password",
        Scope::SignupQueued => "waiting",
        Scope::Takendown => "taken down",
        Scope::Refresh => "refresh",
    }
}

fn forwarded(row: &Row) -> Option<Vec<String>> {
    let to = match row.rule {
        Rule::CallerHome => "the caller's PDS, with the caller's token".to_owned(),
        Rule::Target { parameter, self_read } => {
            let own = if self_read { "; the caller's own account: with the token" } else { "" };
            format!("the PDS of `{}`, without credentials{own}", parameter.as_str())
        }
        Rule::Local | Rule::NotYet(_) | Rule::NotHere(_) => return None,
    };
    let (weight, linked_scope) = if row.external { (weight(row), linked_scope(row)) } else { ("", "") };
    Some(vec![to, body_limit(row).to_owned(), weight.to_owned(), linked_scope.to_owned()])
}

/// How an external PDS counts a call.
const fn weight(row: &Row) -> &'static str {
    match (row.weight, row.kind) {
        (Weight::Upload, _) => "write and upload",
        (Weight::Export, _) => "export",
        (Weight::ByVerb, MethodKind::Procedure) => "write",
        (Weight::ByVerb, MethodKind::Query | MethodKind::Subscription) => "read",
        (Weight::ByVerb, MethodKind::Any) => "read by `GET`, write by `POST`",
    }
}

/// What the grant of a linked caller must allow. Nothing where the call carries no credential.
const fn linked_scope(row: &Row) -> &'static str {
    if matches!(row.rule, Rule::Target { .. }) {
        return "";
    }
    match row.linked_scope {
        LinkedScope::Any => "`atproto`",
        LinkedScope::Writes([RepoAction::Create]) => "`repo:…?action=create` or `transition:generic`",
        LinkedScope::Writes([RepoAction::Delete]) => "`repo:…?action=delete` or `transition:generic`",
        LinkedScope::Writes(_) => "`repo:…?action=create&action=update` or `transition:generic`",
        LinkedScope::SomeWrite => "any `repo:…`, or `transition:generic`",
        LinkedScope::Blob => "any `blob:…`, or `transition:generic`",
        LinkedScope::Import => "`account:repo?action=manage`",
        LinkedScope::Service => "any `rpc:…`, `transition:generic` or `transition:chat.bsky`",
    }
}

const fn body_limit(row: &Row) -> &'static str {
    match row.kind {
        MethodKind::Procedure | MethodKind::Any => match row.body_limit {
            BodyLimit::Own => "`GENKAN_OWN_BODY_LIMIT`",
            BodyLimit::Forwarded => "`GENKAN_FORWARDED_BODY_LIMIT`",
            BodyLimit::Upload => "`GENKAN_UPLOAD_LIMIT`",
            BodyLimit::Import => "`GENKAN_IMPORT_LIMIT`",
            BodyLimit::ReadAhead => "64 KiB",
        },
        MethodKind::Query | MethodKind::Subscription => "",
    }
}

const INTRODUCTION: &str = "\
# Routing

<!-- Printed by `genkan docs routing` from the table in `crates/genkan/src/routing/table.rs`. -->

This page lists the methods under `/xrpc/` that Genkan answers, and says where it forwards the
others. A method has one row. A name that ends in `*` stands for all methods whose names begin like
this and that have no row of their own; the longest beginning decides. Genkan compares names without
regard to case, and forwards them as received.

A query is called by `GET` or `HEAD`, a procedure by `POST`, a method of any kind by each of them.
Another verb is 400 `InvalidRequest`.
";

const ANSWERED: &str = "
## Answered by Genkan

Who may call a method is said in four columns; one of the ways is enough.

* **sessions**: how the session was opened. *full*: with the account's own password. *app password*
  and *privileged app password*: with one of these. *waiting*: by an account that waits for
  admission. *taken down*: by an account that is taken down.
* **apps**: OAuth apps. *all*: with any grant. *with* a scope: with a grant that covers it.
* **others**: *the operator* proves itself by the admin password. *The account's host* proves itself
  by its own admin password, or by service auth that names the method.
* **taken down**: whether an account that is taken down may call the method; 401 is
  `AccountTakedown`.

An empty field means that the column does not apply.

| method | kind | sessions | apps | others | taken down | body limit |
|---|---|---|---|---|---|---|
";

const NOT_YET: &str = "
## Not answered yet

Callers are authenticated first: 401 for everybody else, then 501 `MethodNotImplemented` with this
message.

| method | kind | who may call it | message |
|---|---|---|---|
";

const FORWARDED: &str = "
## Forwarded

The PDS decides who may call these. If a row names the caller's PDS, a request without a token is
401 `AuthMissing`. If it names a parameter, that parameter must be given exactly once, and its
account may be on a host of the fleet or at any PDS in the world. A caller who reads an account of
their own on a host of the fleet keeps their token where the row says so.

Rows that have the last two columns are also forwarded to external PDSes. For a linked caller every
other row with *the caller's PDS* is 501 `MethodNotImplemented`: they call it at their PDS, or at a
public AppView.

* **weight**: how an external PDS counts the call. Each call counts against
  `GENKAN_UPSTREAM_ACCOUNT_CALLS`. A *read* and a *write* count against `GENKAN_UPSTREAM_CALLS` too,
  a *write* also against `GENKAN_UPSTREAM_ACCOUNT_WRITES`, and an *upload* also against
  `GENKAN_UPSTREAM_UPLOADS`. An *export* counts against `GENKAN_UPSTREAM_REPOS` instead of
  `GENKAN_UPSTREAM_CALLS`.
* **linked callers need**: what the grant of a linked account's app must allow. Every grant has
  `atproto`; where the row says only that, it is enough. The account's own PDS checks the rest, such
  as the collection of a record.

| method | kind | goes to | body limit | weight | linked callers need |
|---|---|---|---|---|---|
";

const REFUSED: &str = "
## Refused

501 `MethodNotImplemented` for everybody, with this message.

| method | kind | message |
|---|---|---|
";

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of the page that are about a method.
    fn lines(method: &str) -> Vec<String> {
        let begin = format!("| `{method}` | ");
        markdown()
            .lines()
            .filter_map(|line| Some(line.strip_prefix(&begin)?.trim_end_matches(" |").to_owned()))
            .collect()
    }

    #[test]
    fn the_page_has_a_line_for_each_row() {
        for row in ROWS {
            assert_eq!(lines(row.method).len(), 1, "{}", row.method);
        }
    }

    #[test]
    fn a_line_says_what_its_row_says() {
        for (method, line) in [
            (
                "com.atproto.server.getSession",
                "query | full, privileged app password, app password, waiting | all \
                 | the account's host, by service auth | 401 | ",
            ),
            (
                "com.atproto.server.createAppPassword",
                "procedure | full | none | the account's host, by service auth | 401 | `GENKAN_OWN_BODY_LIMIT`",
            ),
            (
                "com.atproto.server.deactivateAccount",
                "procedure | full, taken down | with `account:status?action=manage` \
                 | the account's host, by service auth | may call it | `GENKAN_OWN_BODY_LIMIT`",
            ),
            (
                "com.atproto.admin.sendEmail",
                "procedure | none | none | the operator; the account's host, by service auth | may call it \
                 | `GENKAN_OWN_BODY_LIMIT`",
            ),
            (
                "com.atproto.admin.updateAccountEmail",
                "procedure |  |  | the operator; the account's host, by its admin password |  \
                 | `GENKAN_OWN_BODY_LIMIT`",
            ),
            ("com.atproto.server.describeServer", "query |  |  | everyone |  | "),
            (
                "com.atproto.temp.addReservedHandle",
                "procedure | the operator | Genkan does not answer this method yet; the operator lists \
                 reserved handles in GENKAN_RESERVED_HANDLES",
            ),
            (
                "com.atproto.repo.putRecord",
                "procedure | the caller's PDS, with the caller's token | `GENKAN_FORWARDED_BODY_LIMIT` | write \
                 | `repo:…?action=create&action=update` or `transition:generic`",
            ),
            (
                "com.atproto.sync.getRepo",
                "query | the PDS of `did`, without credentials; the caller's own account: with the token |  \
                 | export | ",
            ),
            ("*", "any | the caller's PDS, with the caller's token | `GENKAN_FORWARDED_BODY_LIMIT` |  | "),
            (
                "com.atproto.sync.subscribeRepos",
                "subscription | Subscribe at the account's own host, or at a relay",
            ),
        ] {
            assert_eq!(lines(method), [line.trim_end_matches(" |")], "{method}");
        }
    }

    /// The page knows the lists of writes that the table has, and has other words for each.
    #[test]
    fn every_list_of_writes_has_its_words() {
        for row in ROWS {
            let LinkedScope::Writes(actions) = row.linked_scope else { continue };
            let words = linked_scope(row);
            for (action, name) in [
                (RepoAction::Create, "action=create"),
                (RepoAction::Update, "action=update"),
                (RepoAction::Delete, "action=delete"),
            ] {
                assert_eq!(words.contains(name), actions.contains(&action), "{}", row.method);
            }
        }
    }
}
