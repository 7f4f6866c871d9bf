//! The part of the account page that is about the email address.

use crate::accounts::Account;

/// The part of the account page about the email address.
#[derive(Debug)]
pub(super) struct EmailSection<'a> {
    pub(super) address: Option<&'a str>,
    pub(super) confirmed: bool,
    /// Whether the operator has configured e-mail.
    pub(super) is_on: bool,
    /// The form that the page's address asks to open. It opens only if it is usable.
    step: &'a str,
    /// The new address as typed.
    pub(super) typed: String,
}

impl<'a> EmailSection<'a> {
    pub(super) fn of(account: &'a Account, is_on: bool, step: &'a str, typed: String) -> Self {
        let (address, confirmed) = (account.email.as_deref(), account.email_confirmed_at.is_some());
        Self { address, confirmed, is_on, step, typed }
    }

    /// Whether the form for the confirming code is open.
    pub(super) fn confirming(&self) -> bool {
        self.step == CONFIRM && self.may_confirm()
    }

    /// Whether the form for another address is open.
    pub(super) fn changing(&self) -> bool {
        self.step == CHANGE && self.may_change()
    }

    pub(super) const fn may_confirm(&self) -> bool {
        self.is_on && !self.confirmed && self.address.is_some()
    }

    /// Whether the address can be changed. For a confirmed address that needs a code, and so
    /// e-mail.
    pub(super) const fn may_change(&self) -> bool {
        self.is_on || !self.confirmed
    }

    /// Whether there is a form that is not open.
    pub(super) fn has_ways(&self) -> bool {
        (self.may_confirm() && !self.confirming()) || (self.may_change() && !self.changing())
    }
}

pub(super) const CONFIRM: &str = "confirm";
pub(super) const CHANGE: &str = "change";
