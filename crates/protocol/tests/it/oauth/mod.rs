//! The words of OAuth.

mod clients;
mod dpop;
mod jws;
mod scope;
