//! The registry of the XRPC methods that Genkan answers: the handler of each row of the routing
//! table.
//!
//! A handler is bound to its row by a type that [`method!`](super::method::method) declares beside
//! it. The type names the row when the handler is mounted, and in the extractors that give the
//! handler its caller ([`Caller`](super::caller::Caller), [`Operator`](super::admin_auth::Operator)
//! and others). Path, verb and admitted callers come from the row, so they cannot differ from the
//! table.

use std::collections::BTreeSet;

use axum::Router;
use axum::extract::{Request, State};
use axum::handler::Handler;
use http::{Extensions, HeaderMap};

use super::admin_auth::require_operator;
use super::caller::{bearer, check_access};
use super::method::Method;
use super::verbs;
use crate::app::App;
use crate::routing::{Callers, MethodKind, Row, Rule, table};
use crate::wire::error::XrpcError;

/// Methods and their handlers, from which the routes are built.
pub(crate) struct Methods<S> {
    router: Router<S>,
    names: BTreeSet<&'static str>,
}

impl<S: Clone + Send + Sync + 'static> Methods<S> {
    pub(crate) fn new() -> Self {
        Self { router: Router::new(), names: BTreeSet::new() }
    }

    /// Mounts the handler of a method.
    pub(crate) fn answer<M: Method, H, T>(self, _: M, handler: H) -> Self
    where
        H: Handler<T, S>,
        T: 'static,
    {
        self.mount(M::ROW, handler)
    }

    fn mount<H, T>(mut self, row: &'static Row, handler: H) -> Self
    where
        H: Handler<T, S>,
        T: 'static,
    {
        let route = match row.kind {
            MethodKind::Procedure => verbs::procedure(handler),
            MethodKind::Query | MethodKind::Subscription | MethodKind::Any => verbs::query(handler),
        };
        self.router = self.router.route(&format!("/xrpc/{}", row.method), route);
        // `route` panics if a path is mounted twice, so two handlers for one row are noticed at
        // once.
        self.names.insert(row.method);
        self
    }

    /// The names of the methods that have handlers.
    #[cfg(test)]
    pub(crate) const fn names(&self) -> &BTreeSet<&'static str> {
        &self.names
    }

    pub(crate) fn with_state(self, state: S) -> Router {
        self.router.with_state(state)
    }
}

impl Methods<App> {
    /// Mounts the methods that have no handler yet: admitted callers get 501.
    pub(crate) fn refuse_unanswered(self) -> Self {
        table::ROWS.iter().fold(self, |methods, row| match row.rule {
            Rule::NotYet(message) => {
                let refuse = move |State(app): State<App>, request: Request| async move {
                    // The caller is checked first, as a working method would. Otherwise clients
                    // with old tokens would not refresh them.
                    let refused = check_callers(&app, request.headers(), request.extensions(), row).await;
                    refused.err().unwrap_or_else(|| XrpcError::not_here(message))
                };
                methods.mount(row, refuse)
            }
            _ => methods,
        })
    }
}

/// Refuses a request whose caller may not call the method.
async fn check_callers(
    app: &App,
    headers: &HeaderMap,
    extensions: &Extensions,
    row: &'static Row,
) -> Result<(), XrpcError> {
    match row.callers {
        Callers::Anyone => Ok(()),
        Callers::RefreshToken => bearer(headers).map(|_| ()),
        Callers::Account(access) => check_access(app, headers, row, access).await.map(|_| ()),
        Callers::Operator | Callers::OperatorOrHost | Callers::OperatorOrAccount(_) => {
            require_operator(app, headers, extensions)
        }
    }
}
