//! The words of OAuth as atproto speaks it.
//!
//! * [`jwk`], [`jws`]: public keys as JSON, and tokens signed by them
//! * [`dpop`], [`nonce`]: proofs that a request is made by the holder of a key
//! * [`pkce`]: that a code is redeemed by who asked for it
//! * [`scope`], [`permission_set`]: what an app may do
//! * [`client_id`], [`client_metadata`], [`redirect_uri`], [`client_assertion`]: who asks
//! * [`request`], [`error`]: what is asked, and how it is refused
//! * [`access_token`]: what a session's app shows to a host
//! * [`server_metadata`]: what servers say of themselves
//!
//! Everything here reads what strangers send, and is bounded. Times come in as parameters.

pub mod access_token;
pub mod client_assertion;
pub mod client_id;
pub mod client_metadata;
pub mod dpop;
pub mod error;
pub mod jwk;
pub mod jws;
pub mod nonce;
pub mod permission_set;
pub mod pkce;
pub mod redirect_uri;
pub mod request;
pub mod scope;
pub mod server_metadata;
mod thumbprint;
