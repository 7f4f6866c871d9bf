//! The registry of methods against the routing table.

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Method, Request};

use super::*;
use crate::http::router::own_methods;
use crate::http::testing::TestServer;
use crate::routing::{Callers, MethodKind, Row, Rule, table};
use crate::wire::ViaHost;

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

/// A server without accounts, with an admin password.
async fn start() -> TestServer {
    TestServer::start(&[("GENKAN_ADMIN_PASSWORD", ADMIN_PASSWORD)]).await
}

const ADMIN_PASSWORD: &str = "the operator's own";

/// Status, error name and message of a call without input.
async fn call(server: &TestServer, row: &Row, authorization: Option<&str>) -> (u16, String, String) {
    let verb = if row.kind == MethodKind::Procedure { Method::POST } else { Method::GET };
    let mut request = Request::builder().method(verb).uri(format!("/xrpc/{}", row.method));
    if let Some(authorization) = authorization {
        request = request.header("authorization", authorization);
    }
    let answer = server.send(request.body(Body::empty()).unwrap()).await;
    let name = answer.json()["error"].as_str().unwrap_or_default().to_owned();
    (answer.status, name, answer.message())
}

/// `Basic admin:…`
fn admin(password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("admin:{password}")))
}

#[tokio::test]
async fn a_method_with_callers_refuses_everyone_else_before_it_reads_the_input() {
    let server = start().await;
    let mut seen = 0;
    for row in table::ROWS.iter().filter(|row| matches!(row.rule, Rule::Local | Rule::NotYet(_))) {
        if row.callers == Callers::Anyone {
            continue;
        }
        seen += 1;
        let refused = call(&server, row, None).await;
        assert_eq!((refused.0, refused.1.as_str()), (401, "AuthMissing"), "{}", row.method);
        let refused = call(&server, row, Some("Bearer x")).await;
        let is_operators = matches!(row.callers, Callers::Operator | Callers::OperatorOrHost);
        let expected = if is_operators { (401, "AuthenticationRequired") } else { (400, "InvalidToken") };
        assert_eq!((refused.0, refused.1.as_str()), expected, "{}", row.method);
    }
    assert!(seen > 25, "{seen} methods have callers");
}

#[tokio::test]
async fn a_method_without_a_handler_says_so_to_those_who_may_call_it() {
    let server = start().await;
    let mut seen = 0;
    for row in table::ROWS {
        let Rule::NotYet(message) = row.rule else { continue };
        seen += 1;
        let told = (501, "MethodNotImplemented".to_owned(), message.to_owned());
        if row.callers == Callers::Anyone {
            assert_eq!(call(&server, row, None).await, told, "{}", row.method);
            continue;
        }
        assert_eq!(call(&server, row, None).await.0, 401, "{}", row.method);
        assert_eq!(call(&server, row, Some(&admin("a guess"))).await.0, 401, "{}", row.method);
        assert_eq!(call(&server, row, Some(&admin(ADMIN_PASSWORD))).await, told, "{}", row.method);
    }
    assert_eq!(seen, 7);
}

/// The status of a call of a client at this address with an admin password, to a door of each kind.
async fn statuses(server: &TestServer, client: &str, password: &str) -> Vec<u16> {
    let mut statuses = Vec::new();
    for (verb, method, body) in [
        ("GET", "com.atproto.admin.getAccountInfos?dids=did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", ""),
        (
            "POST",
            "com.atproto.admin.updateAccountEmail",
            r#"{"account":"did:plc:aaaaaaaaaaaaaaaaaaaaaaaa","email":"a@b.example"}"#,
        ),
    ] {
        let request = Request::builder().method(verb).uri(format!("/xrpc/{method}"));
        let request =
            request.header("authorization", admin(password)).header("content-type", "application/json");
        let request = request.body(Body::from(body)).unwrap();
        statuses.push(server.send_from(client.parse().unwrap(), request).await.status);
    }
    statuses
}

#[tokio::test]
async fn wrong_admin_passwords_close_the_doors_to_their_address_alone() {
    let limit = ("GENKAN_RATE_ADMIN_PASSWORD", "6/5m");
    let server = TestServer::start(&[("GENKAN_ADMIN_PASSWORD", ADMIN_PASSWORD), limit]).await;
    for _ in 0..3 {
        assert_eq!(statuses(&server, "192.0.2.66", "a guess").await, [401, 401]);
        // The right one costs nothing, however often it comes.
        assert_eq!(statuses(&server, "192.0.2.1", ADMIN_PASSWORD).await, [200, 400]);
    }
    assert_eq!(statuses(&server, "192.0.2.66", "a guess").await, [429, 429]);
    assert_eq!(statuses(&server, "192.0.2.66", ADMIN_PASSWORD).await, [429, 429], "not even compared");
    assert_eq!(statuses(&server, "192.0.2.1", ADMIN_PASSWORD).await, [200, 400]);
    server.clock.advance(std::time::Duration::from_mins(5));
    assert_eq!(statuses(&server, "192.0.2.66", ADMIN_PASSWORD).await, [200, 400]);
}

/// The statuses of a request for a new password and of the use of a code, through this host for this
/// client, or from the client itself.
async fn resets(server: &TestServer, host: Option<&str>, client: &str) -> [u16; 2] {
    let mut statuses = [0; 2];
    for (status, (method, body)) in statuses.iter_mut().zip([
        ("com.atproto.server.requestPasswordReset", r#"{"email":"nobody@example.com"}"#),
        ("com.atproto.server.resetPassword", r#"{"token":"AAAAA-AAAAA","password":"a new password"}"#),
    ]) {
        let request = Request::post(format!("/xrpc/{method}")).header("content-type", "application/json");
        let mut request = request.body(Body::from(body)).unwrap();
        let mut address = client.parse().unwrap();
        if let Some(host) = host {
            request.extensions_mut().insert(ViaHost { host: [host].into_iter().collect(), client: address });
            address = [198, 51, 100, 7].into();
        }
        *status = server.send_from(address, request).await.status;
    }
    statuses
}

#[tokio::test]
async fn one_client_at_a_host_closes_password_resets_to_itself_alone() {
    let server = TestServer::start(&[
        ("GENKAN_RATE_LIMITS_ENABLED", "true"),
        ("GENKAN_RATE_PASSWORD_RESET", "2/1h"),
        ("GENKAN_RATE_USE_CODE", "2/5m"),
        // Otherwise the address in the request would have its limit first.
        ("GENKAN_RATE_REQUEST_MAIL", "1000/1h"),
        ("GENKAN_RATE_REQUEST_MAIL_DAILY", "1000/1d"),
    ])
    .await;
    let open = resets(&server, None, "192.0.2.99").await;
    assert!(!open.contains(&429), "{open:?}");
    for expected in [open, open, [429, 429]] {
        assert_eq!(resets(&server, Some("oak"), "192.0.2.66").await, expected);
    }
    assert_eq!(resets(&server, Some("oak"), "192.0.2.1").await, open, "another client at the host");
    assert_eq!(resets(&server, Some("elm"), "192.0.2.66").await, open, "that address at another host");
    assert_eq!(resets(&server, None, "192.0.2.66").await, open, "that address itself");
    // A host that makes clients up has a limit too: 50 times that of a client.
    let mut admitted = 3;
    for last in 67..=255_u8 {
        admitted += usize::from(resets(&server, Some("oak"), &format!("192.0.2.{last}")).await == open);
    }
    assert_eq!(admitted, 100);
    assert_eq!(resets(&server, Some("elm"), "192.0.2.2").await, open);
}
