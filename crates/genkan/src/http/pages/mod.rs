//! The pages that people sign in on: plain forms that work without script.
//!
//! A GET shows a *page* and changes nothing, except that it may assign an authorization request to
//! the browser. A POST submits a *form*. It is answered 303 to the next page, or with the same page
//! and its mistakes. A *flow* is an authorization request in a browser. Its pages carry `client_id`
//! and `request_uri` along, and the address to which a flow returns is never read from a browser.
//! All other pages are below `/account`.

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
