//! `com.atproto.admin.*`: what the operator's tools, and hosts in their name, may do.

pub(crate) mod accounts;
pub(crate) mod invites;
pub(crate) mod send_email;
pub(crate) mod subject_status;
