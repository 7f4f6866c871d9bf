//! `com.atproto.temp.*`: methods for sign-up, and for references to scopes.

pub(crate) mod check_handle_availability;
pub(crate) mod check_signup_queue;
pub(crate) mod dereference_scope;
