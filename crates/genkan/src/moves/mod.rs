//! Moves of accounts to servers outside the fleet.
//!
//! [`Moves`] signs the PLC operation with which an owner takes an account away. The owner submits
//! it.

mod sign;

pub(crate) use sign::{Changes, Error, Moves};
