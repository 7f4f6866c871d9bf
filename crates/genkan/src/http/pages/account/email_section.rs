//! The part of the account page that is about the email address.

use crate::accounts::Account;

/// The part of the account page that is about the address.
#[derive(Debug)]
pub(super) struct EmailSection<'a> {
    pub(super) address: Option<&'a str>,
    pub(super) confirmed: bool,
    /// The operator sends mail.
    pub(super) is_on: bool,
    /// Which form is to be open, if it may: as the address of the page has it.
    step: &'a str,
    /// The new address, as it was typed.
    pub(super) typed: String,
}

impl<'a> EmailSection<'a> {
    pub(super) fn of(account: &'a Account, is_on: bool, step: &'a str, typed: String) -> Self {
        let (address, confirmed) = (account.email.as_deref(), account.email_confirmed_at.is_some());
        Self { address, confirmed, is_on, step, typed }
    }

    /// The form for the code that confirms is open.
    pub(super) fn confirming(&self) -> bool {
        self.step == CONFIRM && self.may_confirm()
    }

    /// The form for another address is open.
    pub(super) fn changing(&self) -> bool {
        self.step == CHANGE && self.may_change()
    }

    pub(super) const fn may_confirm(&self) -> bool {
        self.is_on && !self.confirmed && self.address.is_some()
    }

    /// A confirmed address takes a code to change, so it takes mail.
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
