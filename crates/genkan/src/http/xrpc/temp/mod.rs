//! `com.atproto.temp.*`: what clients ask around a sign-up.

pub(crate) mod check_handle_availability;
pub(crate) mod check_signup_queue;
pub(crate) mod dereference_scope;
