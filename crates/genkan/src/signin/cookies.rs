//! The pair of cookies by which Genkan recognises a browser.

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

use crate::base::{Secret, random};

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

fn is_ours(text: &str, prefix: &str) -> bool {
    text.strip_prefix(prefix).is_some_and(|rest| {
        rest.len() == 32 && rest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// 128 random bits need no salt.
fn hash(text: &str) -> String {
    HEXLOWER.encode(&Sha256::digest(text))
}

const DEVICE: &str = "dev-";
const SESSION: &str = "ses-";

#[cfg(test)]
mod tests {
    use super::*;

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
