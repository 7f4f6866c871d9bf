//! The authorization server: what an app asks, what its user allows, and the tokens that follow.
//!
//! The order of a sign-in: [`push`], [`authorize`] with [`consent`], [`token`], and [`revoke`] at
//! its end.

mod authorize;
mod consent;
mod linked_account;
mod mint;
mod problem;
mod proof;
mod push;
mod redeem;
mod refresh;
mod revoke;
mod sweep;
mod token;
mod view;

pub(crate) use linked_account::LinkedAccount;
pub(crate) use problem::Problem;
pub(crate) use revoke::{GrantView, end_with_link};
pub(crate) use sweep::SWEEPS;
pub(crate) use view::{Choice, ConsentView, OpenRequest, Outcome, Page, Permission, Redirect};
