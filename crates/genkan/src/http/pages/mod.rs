//! The pages that people sign in on: plain forms that work without script.
//!
//! A *page* is shown by a GET, which changes nothing but who holds an authorization request; a *form* is sent by a
//! POST, which answers 303 to the next page, or the same page again with what is wrong in it. A *flow* is an
//! authorization request in a browser; its pages carry `client_id` and `request_uri` along, and where a flow leads
//! back to is never read from a browser. Everything else is below `/account`.

mod account;
mod answer;
mod authorize;
mod call;
mod colour;
mod consent;
mod consent_page;
mod external;
mod flow;
mod frame;
mod messages;
mod paths;
mod permissions;
mod redirect;
mod reply;
mod routes;
mod service;
mod sign_in;
mod sign_up;
mod theme;
mod trouble;

#[cfg(test)]
mod tests;

pub(crate) use paths::is_page;
pub(crate) use routes::routes;
pub(crate) use theme::ThemeError;

use service::{LEAST, Pages, at_least};
