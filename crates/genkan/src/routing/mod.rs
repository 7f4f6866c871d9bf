//! Where a request goes, and why.
//!
//! [`table`] holds one row for every method family of `com.atproto.*`; `decide` turns a row, the caller and the
//! account a read is about into a route. Both are pure: they read no network, no database and no clock, and know
//! nothing of answers. `docs/routing.md` is printed from the table.
//!
//! Words: *caller* = the account a token speaks for. *Target* = the account a read names. *Home* = the host that
//! keeps an account.

pub(crate) mod decide;
pub(crate) mod method;
pub(crate) mod page;
mod row;
pub(crate) mod table;
pub(crate) mod target;

pub(crate) use decide::{PresentedToken, Refusal, Way};
pub(crate) use row::{AccountAccess, AppAccess, Callers, MethodKind, Parameter, Row, Rule};
