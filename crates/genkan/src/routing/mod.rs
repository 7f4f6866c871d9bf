//! Where a request goes, and why.
//!
//! `table` has one row for every method that Genkan treats by name, and for the families of all
//! others; `row` explains the columns. `decide` turns a row, the credential and the account that
//! a read is about into a way. Both are pure: they read no network, no database and no clock, and
//! know nothing of answers. `page` prints `docs/routing.md` from the table.
//!
//! Words: the *caller* is the account that a token speaks for, the *target* the account that a read
//! names, the *home* the host that keeps an account.

pub(crate) mod decide;
#[doc(hidden)]
pub mod fuzzing;
pub(crate) mod method;
pub(crate) mod page;
mod row;
pub(crate) mod table;
pub(crate) mod target;
#[cfg(test)]
mod tests;

pub(crate) use decide::{Decision, PresentedToken, Refusal, Route};
pub(crate) use row::{
    AccountAccess, AppAccess, BodyLimit, Callers, Handling, LinkedScope, MethodKind, Parameter, Row, Rule,
    Weight,
};
