//! `com.atproto.admin.*`: methods for the operator's tools, and for hosts that pass calls of these
//! tools on.

pub(crate) mod accounts;
pub(crate) mod invites;
pub(crate) mod send_email;
pub(crate) mod subject_status;
