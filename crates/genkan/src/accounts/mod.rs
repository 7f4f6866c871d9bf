//! Accounts: their handles, e-mail addresses, hosts and standing.
//!
//! *Home* is the host that keeps an account's repository; [`AccountHosts`] caches which host that
//! is. A row appears when a sign-up is recorded (`creating`) and becomes an account when the
//! sign-up is complete (`open`). This room never speaks to a host or the directory.
//!
//! Services: [`Accounts`], [`Passwords`], [`AppPasswords`], [`Emails`] with its [`EmailTokens`],
//! and [`Invites`]. The tables are in `sql`.

mod account_hosts;
mod app_passwords;
mod email;
mod email_token;
pub(crate) mod emails;
mod error;
mod hashing_queue;
mod invites;
mod password;
mod service;
mod sql;
#[cfg(test)]
pub(crate) mod testing;
mod types;

pub(crate) use account_hosts::{AccountHosts, Home};
pub(crate) use app_passwords::AppPasswords;
pub(crate) use email::Email;
pub(crate) use email_token::{CodeError, EmailTokens, VerifiedCode};
pub(crate) use emails::{Emails, EmailsError};
pub(crate) use error::{ClaimError, NewError};
pub(crate) use hashing_queue::{Rank, Requester};
pub(crate) use invites::{Invites, NewInvites, is_invite_good, return_invite, use_invite};
pub(crate) use password::{PasswordError, Passwords, RecognitionError};
pub(crate) use service::{
    Accounts, check_counts, count_by_host, count_on_host, hold, insert_creating, is_known, note_change, open,
    prepare_counts, release_reserved_handle, remove_row, reserve_handle, take_reserved_handle,
};
pub(crate) use sql::accounts::{DELETION_NOTICE, Demand};
pub(crate) use types::{Account, AppPassword, Invite, InviteUse, NewAccount, Standing, State};
