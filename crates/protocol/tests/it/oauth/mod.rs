//! The words of OAuth.

mod dpop;
mod jws;
mod scope;
