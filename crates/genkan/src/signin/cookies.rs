//! The pair of cookies by which Genkan recognises a browser.

use std::time::Duration;

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::base::{Secret, Timestamp, random};

/// `dev-…`, which stays, and `ses-…`, which rotates: 128 random bits each.
#[derive(Clone, Debug)]
pub(crate) struct Cookies {
    device: Secret<String>,
    session: Secret<String>,
}

impl Cookies {
    /// Reads the cookies that a browser sent, if they have the form that Genkan gives out.
    pub(crate) fn shown(device: &str, session: &str) -> Option<Self> {
        // The form is checked before the database is asked, so that arbitrary cookies cost no
        // query.
        let fine = is_ours(device, DEVICE) && is_ours(session, SESSION);
        fine.then(|| Self { device: device.to_owned().into(), session: session.to_owned().into() })
    }

    pub(super) fn fresh() -> Self {
        Self { device: Secret::new(made(DEVICE)), session: Secret::new(made(SESSION)) }
    }

    /// Returns cookies for a browser that has no row. Genkan recognises them by this key alone, as long
    /// as it would keep the row of a browser without a sign-in.
    pub(super) fn fresh_without_row(key: &[u8; 32], now: Timestamp) -> Self {
        // The time of its making, and 96 random bits.
        let seconds = u32::try_from(now.as_seconds()).unwrap_or(u32::MAX);
        let device = format!("{DEVICE}{seconds:08x}{}", HEXLOWER.encode(&random::bytes::<12>()));
        let session = Secret::new(session_without_row(key, &device));
        Self { device: Secret::new(device), session }
    }

    /// Whether Genkan gave these cookies to a browser that has no row.
    pub(super) fn need_no_row(&self, key: &[u8; 32], now: Timestamp) -> bool {
        let device = self.device.expose();
        let given = session_without_row(key, device);
        let seconds = device.get(DEVICE.len()..DEVICE.len() + 8);
        let made_at = seconds.and_then(|seconds| u32::from_str_radix(seconds, 16).ok());
        bool::from(given.as_bytes().ct_eq(self.session.expose().as_bytes()))
            && made_at.is_some_and(|at| now.is_within(KEEP_UNUSED, Timestamp::from_seconds(i64::from(at))))
    }

    pub(super) fn with_new_session(&self) -> Self {
        Self { device: self.device.clone(), session: Secret::new(made(SESSION)) }
    }

    pub(crate) const fn device(&self) -> &Secret<String> {
        &self.device
    }

    pub(crate) const fn session(&self) -> &Secret<String> {
        &self.session
    }

    pub(super) fn device_hash(&self) -> String {
        hash(self.device.expose())
    }

    pub(super) fn session_hash(&self) -> String {
        hash(self.session.expose())
    }
}

fn made(prefix: &str) -> String {
    format!("{prefix}{}", HEXLOWER.encode(&random::bytes::<16>()))
}

/// The session cookie that belongs to a device cookie as long as the device has no row.
fn session_without_row(key: &[u8; 32], device: &str) -> String {
    // Key and device cookie have fixed lengths, so no two inputs of the hash are alike. Half of it
    // is sent, from which the rest of the hash cannot be continued.
    let digest = Sha256::new().chain_update(key).chain_update(device).finalize();
    format!("{SESSION}{}", HEXLOWER.encode(digest.get(..16).unwrap_or(&digest)))
}

fn is_ours(text: &str, prefix: &str) -> bool {
    text.strip_prefix(prefix).is_some_and(|rest| {
        rest.len() == 32 && rest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// 128 random bits need no salt.
fn hash(text: &str) -> String {
    HEXLOWER.encode(&Sha256::digest(text))
}

/// How long a browser without a sign-in is remembered, unless it had one in the last
/// [`KNOWN_FOR`](super::attempts::KNOWN_FOR).
pub(super) const KEEP_UNUSED: Duration = Duration::from_hours(24);
const DEVICE: &str = "dev-";
const SESSION: &str = "ses-";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_without_a_row_are_known_by_the_key_for_a_day() {
        let now = Timestamp::from_seconds(1_700_000_000);
        let cookies = Cookies::fresh_without_row(&[1; 32], now);
        assert!(Cookies::shown(cookies.device.expose(), cookies.session.expose()).is_some());
        let is_known = |cookies: &Cookies, key, after: u64| {
            cookies.need_no_row(&[key; 32], now.plus(Duration::from_secs(after)))
        };
        assert!(is_known(&cookies, 1, 0) && is_known(&cookies, 1, 24 * 3600 - 1));
        assert!(!is_known(&cookies, 1, 24 * 3600) && !is_known(&cookies, 2, 0));
        let other = Cookies { device: Secret::new(made(DEVICE)), ..cookies.clone() };
        assert!(!is_known(&other, 1, 0));
        assert!(!is_known(&Cookies::fresh(), 1, 0));
        assert!(!is_known(&cookies.with_new_session(), 1, 0));
    }

    #[test]
    fn only_cookies_of_genkans_form_are_looked_up() {
        let (device, session) = (made(DEVICE), made(SESSION));
        let cookies = Cookies::shown(&device, &session).unwrap();
        assert_eq!(format!("{cookies:?}"), "Cookies { device: [sealed], session: [sealed] }");
        assert_ne!(cookies.with_new_session().session_hash(), cookies.session_hash());
        for (device, session) in [
            (session.as_str(), device.as_str()),
            ("", ""),
            (&device[..35], &session),
            (&device.to_uppercase(), &session),
            (&device, "ses-zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz"),
        ] {
            assert!(Cookies::shown(device, session).is_none(), "{device} {session}");
        }
    }
}
