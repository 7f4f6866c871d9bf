//! Browsers, and the accounts that they are signed in to.

use std::net::IpAddr;
use std::time::Duration;

use super::Cookies;
use crate::accounts::Account;
use crate::base::{Timestamp, WaitingClient, id_type};

id_type!(
    /// The id of a browser. It is derived from its cookie, but reveals nothing about it.
    DeviceId
);

/// A browser as its request shows it.
#[derive(Clone, Debug)]
pub(crate) struct BrowserInfo {
    pub(crate) address: IpAddr,
    pub(crate) user_agent: String,
    /// The browser, as long as it waits for the answer. Without it, no cookie is rotated: it would not
    /// get the next one.
    pub(crate) client: WaitingClient,
}

/// A recognised or new browser.
#[derive(Clone, Debug)]
pub(crate) struct Visit {
    pub(crate) device: DeviceId,
    pub(super) cookies: Cookies,
    /// Whether the cookies differ from those that the browser sent.
    pub(super) changed: bool,
    /// The number of the last rotation whose sign-ins the cookie carries. Later ones may be of another
    /// browser, and are not visible to it.
    pub(super) carries: i64,
    /// Whether another cookie had replaced it when it was recognised.
    pub(super) is_older: bool,
    /// What its row will say, if the browser has none yet. It gets one when it signs in.
    pub(super) without_row: Option<BrowserInfo>,
    pub(super) client: WaitingClient,
}

impl Visit {
    /// Returns the cookies to send with the answer.
    pub(crate) fn to_set(&self) -> Option<&Cookies> {
        self.changed.then_some(&self.cookies)
    }

    /// Takes the cookies that a rotation with this number made.
    pub(super) fn replace_cookies(&mut self, cookies: Cookies, rotation: i64) {
        *self = Self {
            device: self.device.clone(),
            cookies,
            changed: true,
            carries: rotation,
            is_older: false,
            without_row: None,
            client: self.client.clone(),
        };
    }
}

/// How long a sign-in lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Persistence<'a> {
    Remembered,
    /// Only for this authorization request.
    OneRequest(&'a str),
    /// Of a linked person, in order to manage their apps. The room of links knows when it ends.
    Visit,
}

impl<'a> Persistence<'a> {
    pub(super) const fn request(self) -> &'a str {
        match self {
            Self::Remembered => "",
            Self::OneRequest(request) => request,
            // No authorization request has this id.
            Self::Visit => "visit",
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
