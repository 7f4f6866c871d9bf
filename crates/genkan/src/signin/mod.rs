//! Browser sign-ins: which accounts a browser may speak for, and how a thief of its cookies is noticed.
//!
//! A *device* is a browser, known by a pair of cookies: one that stays, and one that *rotates* every few
//! minutes and whenever somebody signs in or out. The database has hashes of both. Who shows a rotated
//! cookie later than [`TOLERANCE`] has a copy, or the owner's place was taken by one: the device is
//! forgotten with every sign-in on it. A *sign-in* is remembered, or good for one authorization request
//! only; either way it is fresh for a while, and then the password is wanted again.
//!
//! This room never sees a request or a page, and sends no cookie: it says which to send.
//!
//! [`SignIns`] is the service. [`sweep`] forgets browsers that did not come back.

mod cookies;
mod error;
mod service;
mod sql;
#[cfg(test)]
mod tests;
mod types;

pub(crate) use cookies::Cookies;
pub(crate) use error::Error;
pub(crate) use service::{SignIns, is_signed_in, sweep};
pub(crate) use types::{BrowserInfo, Device, DeviceId, Persistence, SignIn, Visit};
