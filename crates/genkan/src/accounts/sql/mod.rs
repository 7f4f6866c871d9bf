//! The tables of this room, a file for each: `accounts`, `account_counts`, `handle_claims`, `app_passwords`,
//! `email_tokens`, and `invite_codes` with `invite_uses`.

pub(super) mod accounts;
pub(super) mod app_passwords;
mod claims;
pub(super) mod counts;
pub(super) mod email_tokens;
pub(super) mod invites;
