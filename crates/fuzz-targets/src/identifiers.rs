//! Identifiers: what parses prints itself, and the checks that need no value agree with the
//! parsers.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use genkan_protocol::crypto::PublicKey;
use genkan_protocol::origin::Origin;
use genkan_protocol::syntax::{AtIdentifier, Did, Handle, Nsid};

use crate::text;

/// A DID.
pub fn did(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    let parsed = text.parse::<Did>().ok();
    assert_eq!(Did::check(text).is_ok(), parsed.is_some());
    if Did::is_of_account(text) {
        let did = parsed.as_ref().expect("a DID of an account is a DID");
        assert!(did.is_plc() || did.is_web());
    }
    if let Some(did) = parsed {
        assert_eq!(format!("did:{}:{}", did.method(), did.identifier()), text);
    }
}

/// A handle.
pub fn handle(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    assert_eq!(Handle::check(text).is_ok(), text.parse::<Handle>().is_ok());
    if let Some(handle) = prints_itself::<Handle>(text) {
        assert!(handle.as_str().eq_ignore_ascii_case(text));
        assert!(handle.is_under(handle.tld()));
    }
}

/// A DID or a handle.
pub fn at_identifier(bytes: &[u8]) {
    if let Some(text) = text(bytes) {
        prints_itself::<AtIdentifier>(text);
    }
}

/// The name of a method or record type.
pub fn nsid(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    assert_eq!(Nsid::check(text).is_ok(), text.parse::<Nsid>().is_ok_and(|nsid| nsid == text));
}

/// A web origin. The URL parser of browsers sees the same one.
pub fn origin(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    let Some(origin) = prints_itself::<Origin>(text) else { return };
    assert!(origin.is_https() == origin.as_str().starts_with("https://"));
    if let Ok(url) = url::Url::parse(origin.as_str()) {
        assert_eq!(url.port_or_known_default(), Some(origin.port()));
        assert_eq!((url.username(), url.password(), url.path()), ("", None, "/"));
    }
}

/// A public key as `did:key`.
pub fn did_key(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    if let Ok(key) = PublicKey::from_did_key(text) {
        assert_eq!(key.to_did_key(), text);
    }
}

fn prints_itself<T>(text: &str) -> Option<T>
where
    T: FromStr<Err: Debug + PartialEq> + Display + Debug + PartialEq,
{
    let parsed = text.parse::<T>().ok()?;
    assert_eq!(parsed.to_string().parse::<T>().as_ref(), Ok(&parsed));
    Some(parsed)
}
