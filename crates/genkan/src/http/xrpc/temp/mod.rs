//! `com.atproto.temp.*`: questions of clients around a sign-up.

pub(crate) mod check_handle_availability;
pub(crate) mod check_signup_queue;
pub(crate) mod dereference_scope;
