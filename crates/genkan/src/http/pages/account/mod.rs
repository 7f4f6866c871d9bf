//! `/account`: the apps and browsers with access to an account, its email address and its password.
//!
//! [`page`] shows an account; each subject has a file with its forms. [`owner`] finds the account
//! that a request may act for.

pub(super) mod activation;
pub(super) mod apps;
pub(super) mod email;
mod email_section;
mod owner;
pub(super) mod page;
pub(super) mod password;
pub(super) mod sign_ins;
