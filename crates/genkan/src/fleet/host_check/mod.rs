//! The host check: proofs that a host works with Genkan. Each is one harmless call whose answer is
//! unambiguous.
//!
//! Tested with the reference PDS 0.5.35. No proof changes anything on the host or in the directory.
//!
//! `checker` is what every host must be configured with, `proofs` makes the calls, and `findings` is
//! what they find.

mod checker;
mod findings;
mod proofs;
#[cfg(test)]
mod tests;

pub(crate) use checker::{Expected, HostChecker, Subject};
pub(crate) use findings::{Finding, HostCheck, Proof, Verdict};
