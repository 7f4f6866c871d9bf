//! `com.atproto.server.*`: accounts, sessions, app passwords, invites, and codes by e-mail.

pub(crate) mod account_deletion;
pub(crate) mod activation;
pub(crate) mod app_passwords;
pub(crate) mod create_account;
pub(crate) mod create_session;
pub(crate) mod delete_session;
pub(crate) mod email_confirmation;
pub(crate) mod email_update;
pub(crate) mod get_session;
pub(crate) mod invite_codes;
pub(crate) mod password_reset;
pub(crate) mod refresh_session;
