//! The check that the tests execute every statement, and that each reads large tables by an index.
//!
//! `literals` reads string literals from source, `texts` finds the statements among them, `large`
//! fills tables with 100 000 rows, `plans` reads the databases' plans, and `exceptions` lists the
//! statements that may do otherwise. `cargo verify` runs `check` after the tests on PostgreSQL, with
//! the texts that they executed.

mod check;
mod exceptions;
mod large;
mod literals;
mod plans;
mod texts;
