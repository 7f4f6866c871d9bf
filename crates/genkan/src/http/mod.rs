//! The local door: what Genkan answers itself, with axum.
//!
//! A handler decodes, makes one call into a room below, and encodes. Every refusal of a method is
//! an [`XrpcError`](crate::wire::XrpcError). The edge hands requests in, each with its
//! [`ClientAddr`](crate::wire::ClientAddr) and [`RequestId`](crate::wire::RequestId); where one is
//! missing, as in tests and on the operator's listener, the layers fill it in.

pub(crate) mod admin_auth;
mod answers;
pub(crate) mod caller;
mod deadline;
mod describe_server;
mod health;
mod json;
mod landing;
pub(crate) mod language;
pub(crate) mod method;
mod methods;
pub(crate) mod oauth;
mod ops;
mod pages;
mod router;
pub(crate) mod session_answer;
mod state;
#[cfg(test)]
mod testing;
mod tls_check;
mod verbs;
pub(crate) mod well_known;
pub(crate) mod xrpc;

pub(crate) use health::Readiness;
pub(crate) use json::{XrpcInput, XrpcQuery};
pub(crate) use ops::ops_router;
pub(crate) use pages::{ThemeError, routes as page_routes};
#[cfg(test)]
pub(crate) use router::Counted;
pub(crate) use router::{own_routes, with_layers};
pub(crate) use state::HttpState;
#[cfg(test)]
pub(crate) use verbs::{procedure, query};

#[cfg(test)]
mod tests;
