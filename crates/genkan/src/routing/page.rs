//! The routing table as a page of documentation, `docs/routing.md`.

use std::fmt::Write as _;

use genkan_protocol::jwt::session::Scope;

use super::row::{AccountAccess, AppAccess, BodyLimit, Callers, MethodKind, Row, Rule};
use super::table::ROWS;

/// The table as a page of documentation.
pub(crate) fn markdown() -> String {
    let mut page = String::from(INTRODUCTION);
    for row in ROWS {
        let (kind, rule, callers) = (kind(row.kind), rule(row.rule), callers(row));
        let body = body_limit(row);
        writeln!(page, "| `{}` | {kind} | {rule} | {callers} | {body} |", row.method)
            .expect("writing to a string never fails");
    }
    page
}

const fn kind(kind: MethodKind) -> &'static str {
    match kind {
        MethodKind::Query => "query",
        MethodKind::Procedure => "procedure",
        MethodKind::Subscription => "subscription",
        MethodKind::Any => "any",
    }
}

fn rule(rule: Rule) -> String {
    match rule {
        Rule::Local => "Genkan".to_owned(),
        Rule::NotYet(message) => format!("not answered yet, 501: {message}"),
        Rule::CallerHome => "the caller's PDS, in the caller's name".to_owned(),
        Rule::Target { parameter, self_read } => {
            let own = if self_read { OWN_ACCOUNT } else { "" };
            format!("the PDS of `{}`, without credentials{own}", parameter.as_str())
        }
        Rule::NotHere(message) => format!("501: {message}"),
    }
}

const OWN_ACCOUNT: &str = "; in the caller's name when it is their own account and on a host of the fleet";

fn callers(row: &Row) -> String {
    match row.callers {
        Callers::Anyone if matches!(row.rule, Rule::Local | Rule::NotYet(_)) => "everyone".to_owned(),
        Callers::Anyone => String::new(),
        Callers::RefreshToken => "refresh token".to_owned(),
        Callers::Account(access) => account(access),
        Callers::Operator => "operator".to_owned(),
        Callers::OperatorOrHost => "operator, the account's host".to_owned(),
        Callers::OperatorOrAccount(access) => format!("operator, {}", account(access)),
    }
}

fn account(access: AccountAccess) -> String {
    let mut ways: Vec<String> = Vec::new();
    if access.sessions.contains(&Scope::AppPass) {
        ways.push("any session".to_owned());
    } else if access.sessions.contains(&Scope::Access) {
        ways.push("full session".to_owned());
    }
    match access.apps {
        AppAccess::Any => ways.push("apps".to_owned()),
        AppAccess::Never(_) => {}
        AppAccess::Account(..) | AppAccess::Identity(_) => {
            ways.extend(access.apps.scope().map(|scope| format!("apps with `{scope}`")));
        }
    }
    if access.hosts {
        ways.push("the account's host".to_owned());
    }
    let taken_down = if access.taken_down { "; also if taken down" } else { "" };
    ways.join(", ") + taken_down
}

const fn body_limit(row: &Row) -> &'static str {
    match (row.kind, row.rule) {
        (MethodKind::Procedure, Rule::Local | Rule::CallerHome) => match row.body_limit {
            BodyLimit::Own => "`GENKAN_OWN_BODY_LIMIT`",
            BodyLimit::Forwarded => "`GENKAN_FORWARDED_BODY_LIMIT`",
            BodyLimit::Upload => "`GENKAN_UPLOAD_LIMIT`",
            BodyLimit::Import => "`GENKAN_IMPORT_LIMIT`",
        },
        _ => "",
    }
}

const INTRODUCTION: &str = "\
# Routing

<!-- Printed by `genkan docs routing` from the table in `crates/genkan/src/routing/table.rs`. -->

This page lists the methods under `/xrpc/` that Genkan answers, and says where it forwards the others.
The first row that matches a method decides. A name that ends in `*` matches all names with that
beginning. Genkan compares names without regard to case, and forwards them as received.

A query is called by `GET` or `HEAD`, a procedure by `POST`; another verb is 400 `InvalidRequest`. If
a row names the caller's PDS, a request without a token is 401 `AuthMissing`. If a row names a
parameter, the parameter must appear exactly once, and its account may be on any PDS.

A caller whose PDS is external, and who signed in through Genkan, is forwarded to that PDS for methods
that begin with `com.atproto.repo.` or `com.atproto.sync.`, and for
`com.atproto.server.getServiceAuth`. Every other method is 501 `MethodNotImplemented` for them: call
it at their PDS, or at a public AppView.

A *full session* was opened with the account's own password; *any session* may also be one of an app
password. An account's host calls with service auth that names the method. An account that is taken
down is refused with 401 `AccountTakedown`, unless the row says otherwise.

| method | kind | who answers | who may call it | body limit |
|---|---|---|---|---|
";

#[cfg(test)]
mod tests {
    use super::*;

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
