//! The registry of methods against the routing table.

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Method, Request};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tower::ServiceExt as _;

use super::*;
use crate::base::{Clock, Secret};
use crate::config::Config;
use crate::http::router::own_methods;
use crate::routing::{Callers, MethodKind, Row, Rule, table};
use crate::telemetry::metrics::Metrics;

/// Each row that says Genkan answers has a handler, and each handler has such a row. Otherwise
/// `docs/routing.md` would be wrong.
#[test]
fn every_row_that_genkan_answers_has_a_handler_and_every_handler_a_row() {
    let answered: Vec<&str> =
        table::ROWS.iter().filter(|row| row.rule == Rule::Local).map(|row| row.method).collect();
    let (methods, own) = (methods(), own_methods());
    let handlers = methods.names() | own.names();
    for method in &answered {
        assert!(handlers.contains(method), "{method} has a row and no handler");
    }
    assert_eq!(handlers.len(), answered.len(), "a handler has no row");
    let unanswered = super::methods().refuse_unanswered();
    for row in table::ROWS {
        let is_mounted = unanswered.names().contains(row.method) || own.names().contains(row.method);
        assert_eq!(is_mounted, matches!(row.rule, Rule::Local | Rule::NotYet(_)), "{}", row.method);
    }
}

/// The methods on an empty database, with an admin password.
async fn empty_house(folder: &std::path::Path) -> Router {
    let mut config = Config::for_tests(folder);
    config.keys.admin_password = Some(Secret::new("the operator's".to_owned()));
    let app = App::build_with(config, Clock::System, Metrics::default()).await.unwrap();
    routes(&app)
}

/// Status, error name and message of a call without input.
async fn call(router: &Router, row: &Row, authorization: Option<&str>) -> (u16, String, String) {
    let verb = if row.kind == MethodKind::Procedure { Method::POST } else { Method::GET };
    let mut request = Request::builder().method(verb).uri(format!("/xrpc/{}", row.method));
    if let Some(authorization) = authorization {
        request = request.header("authorization", authorization);
    }
    let response = router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
    let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
    (status, text("error"), text("message"))
}

/// `Basic admin:…`
fn admin(password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("admin:{password}")))
}

#[tokio::test]
async fn a_method_with_callers_refuses_everyone_else_before_it_reads_the_input() {
    let folder = tempfile::tempdir().unwrap();
    let router = empty_house(folder.path()).await;
    let mut seen = 0;
    for row in table::ROWS.iter().filter(|row| matches!(row.rule, Rule::Local | Rule::NotYet(_))) {
        if row.callers == Callers::Anyone {
            continue;
        }
        seen += 1;
        let refused = call(&router, row, None).await;
        assert_eq!((refused.0, refused.1.as_str()), (401, "AuthMissing"), "{}", row.method);
        let refused = call(&router, row, Some("Bearer x")).await;
        let is_operators = matches!(row.callers, Callers::Operator | Callers::OperatorOrHost);
        let expected = if is_operators { (401, "AuthenticationRequired") } else { (400, "InvalidToken") };
        assert_eq!((refused.0, refused.1.as_str()), expected, "{}", row.method);
    }
    assert!(seen > 25, "{seen} methods have callers");
}

#[tokio::test]
async fn a_method_without_a_handler_says_so_to_those_who_may_call_it() {
    let folder = tempfile::tempdir().unwrap();
    let router = empty_house(folder.path()).await;
    let mut seen = 0;
    for row in table::ROWS {
        let Rule::NotYet(message) = row.rule else { continue };
        seen += 1;
        let told = (501, "MethodNotImplemented".to_owned(), message.to_owned());
        if row.callers == Callers::Anyone {
            assert_eq!(call(&router, row, None).await, told, "{}", row.method);
            continue;
        }
        assert_eq!(call(&router, row, None).await.0, 401, "{}", row.method);
        assert_eq!(call(&router, row, Some(&admin("a guess"))).await.0, 401, "{}", row.method);
        assert_eq!(call(&router, row, Some(&admin("the operator's"))).await, told, "{}", row.method);
    }
    assert_eq!(seen, 7);
}
