//! Browser sign-ins: the accounts that a browser may act for, and how a theft of its cookies is
//! noticed.
//!
//! A *device* is a browser, recognised by a pair of cookies: one that stays, and one that *rotates*
//! every few minutes and at every sign-in and sign-out. The database has hashes of both. The answer
//! with a rotated cookie can be lost or slow, so the cookies that it replaced are accepted for some
//! seconds, and each once more within a minute. After that an older cookie means that two programs
//! share the cookies, of which one may be a thief. The device and every sign-in on it then end. When
//! strangers have had too many devices stored, a browser gets its row only when it signs in, and a key
//! of Genkan proves its cookies until then, for a day.
//!
//! A *sign-in* is remembered, or valid for one authorization request only. In both cases it is fresh
//! for a while, and then Genkan asks for the password again. Linked people sign in for one request or
//! for a visit.
//!
//! One rule keeps a cookie that another program knows from carrying what its owner signs in to. Each
//! request that rotates the cookie takes the next number, and a sign-in has that of its request. A
//! cookie carries the sign-ins up to the number of the request that made it. Who shows a cookie gets
//! another one that carries what this one did, and the sign-in that was asked for. Sign-ins that this
//! one did not carry are undone then. A cookie is rotated only for a browser that waits for the next
//! one.
//!
//! This room never sees a request or a page, and sends no cookie. It returns the cookies to send.
//!
//! [`SignIns`] is the service, and [`Attempts`] counts attempts. [`SWEEPS`] removes browsers that did
//! not return, and [`sweep_addresses`] old addresses.

mod attempts;
mod cookies;
mod error;
mod service;
mod sql;
#[cfg(test)]
mod tests;
mod types;

pub(crate) use attempts::{Attempt, Attempts, sweep_addresses};
pub(crate) use cookies::Cookies;
pub(crate) use error::Error;
pub(crate) use service::{SWEEPS, SignIns, is_signed_in};
pub(crate) use types::{BrowserInfo, Device, DeviceId, Persistence, SignIn, Visit};
