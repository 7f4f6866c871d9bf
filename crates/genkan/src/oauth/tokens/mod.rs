//! Tokens and proofs, and the caches for them.

mod caller;
mod onward;
mod refresh_token;
mod used;
mod verified;

pub(crate) use caller::{AccessError, CallerPlace, GrantCaller};
pub(crate) use onward::Onward;
pub(super) use onward::{HostTokenSlot, Signer, Token};
pub(super) use refresh_token::{RefreshTokenId, RefreshTokens};
pub(super) use used::{CHALLENGE, OneTimeUse, PROOF, UsedOnce};
pub(super) use verified::VerifiedTokens;
