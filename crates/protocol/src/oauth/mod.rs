//! The words of OAuth as atproto speaks it.
//!
//! * [`jwk`], [`jws`]: public keys as JSON, and tokens signed by them
//! * [`dpop`], [`nonce`]: proofs that a request is made by the holder of a key
//! * [`pkce`]: that a code is redeemed by who asked for it
//! * [`scope`], [`permission_set`]: what an app may do
//!
//! Everything here reads what strangers send, and is bounded. Times come in as parameters.

pub mod dpop;
pub mod jwk;
pub mod jws;
pub mod nonce;
pub mod permission_set;
pub mod pkce;
pub mod scope;
