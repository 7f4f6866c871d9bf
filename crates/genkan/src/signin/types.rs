//! Browsers, and the accounts that they are signed in to.

use std::net::IpAddr;
use std::time::Duration;

use super::Cookies;
use crate::accounts::Account;
use crate::base::{Timestamp, id_type};

id_type!(
    /// The id of a browser. It is derived from its cookie, but reveals nothing about it.
    DeviceId
);

/// A browser's address and name, as its request has them.
#[derive(Clone, Debug)]
pub(crate) struct BrowserInfo {
    pub(crate) address: IpAddr,
    pub(crate) user_agent: String,
}

/// A recognised or new browser.
#[derive(Clone, Debug)]
pub(crate) struct Visit {
    pub(crate) device: DeviceId,
    pub(super) cookies: Cookies,
    /// Whether the cookies differ from those that the browser sent.
    pub(super) changed: bool,
    /// The time of the last rotation, if the browser sent the cookie from before it. Sign-ins since
    /// then are not visible to it.
    pub(super) stale_since: Option<Timestamp>,
    /// What its row will say, if the browser has none yet. It gets one when it signs in.
    pub(super) without_row: Option<BrowserInfo>,
}

impl Visit {
    /// Returns the cookies to send with the answer.
    pub(crate) fn to_set(&self) -> Option<&Cookies> {
        self.changed.then_some(&self.cookies)
    }

    pub(super) fn replace_cookies(&mut self, cookies: Cookies) {
        *self = Self {
            device: self.device.clone(),
            cookies,
            changed: true,
            stale_since: None,
            without_row: None,
        };
    }
}

/// How long a sign-in lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Persistence<'a> {
    Remembered,
    /// Only for this authorization request.
    OneRequest(&'a str),
}

impl<'a> Persistence<'a> {
    pub(super) const fn request(self) -> &'a str {
        match self {
            Self::Remembered => "",
            Self::OneRequest(request) => request,
        }
    }
}

/// An account that a browser is, or was, signed in to.
#[derive(Clone, Debug)]
pub(crate) struct SignIn {
    pub(crate) account: Account,
    /// When the password was typed.
    pub(crate) at: Timestamp,
}

impl SignIn {
    /// Whether the sign-in may act without the password.
    pub(crate) fn is_fresh(&self, now: Timestamp) -> bool {
        now.since(self.at) <= FRESH
    }
}

/// A browser as the owner of an account sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) id: DeviceId,
    pub(crate) address: String,
    pub(crate) user_agent: String,
    pub(crate) seen_at: Timestamp,
    pub(crate) entered_at: Timestamp,
}

/// How long a remembered account may act without its password.
pub(super) const FRESH: Duration = Duration::from_hours(7 * 24);
