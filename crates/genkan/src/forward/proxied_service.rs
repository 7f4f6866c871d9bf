//! The service that a call names in `atproto-proxy`, checked before a host may resolve it.
//!
//! A PDS passes most methods on to this service. It resolves the DID first, so for a `did:web` it
//! connects to a name that the caller chose. Hosts behind a plain-http front run without a guard of
//! their own, so Genkan refuses the names that its own guarded client would refuse: here by their text,
//! and in `external::services` by the addresses that they lead to.

use genkan_protocol::syntax::Did;
use http::Uri;
use http::header::{HeaderMap, HeaderName};

use crate::base::fetch::Names;
use crate::base::fetch::target::check_name;
use crate::identity::origin_of_web;

/// Names the service that a PDS passes a call on to.
pub(super) const ATPROTO_PROXY: HeaderName = HeaderName::from_static("atproto-proxy");

/// The name of a `did:web` whose text has passed, without the method: what is looked up before a host
/// is sent there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WebName<'a>(pub(super) &'a str);

/// Checks the service that a call names, if it names one. Returns the name that has to be looked up.
///
/// # Errors
///
/// What the caller is told. The texts about the header's form are those of the reference PDS.
pub(super) fn check<'a>(headers: &'a HeaderMap, names: &Names) -> Result<Option<WebName<'a>>, &'static str> {
    let mut values = headers.get_all(ATPROTO_PROXY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    // Genkan might check one of them, and the host use the other.
    if values.next().is_some() {
        return Err("duplicate atproto-proxy header");
    }
    // As at the reference PDS, an empty value counts as no header.
    if value.is_empty() {
        return Ok(None);
    }
    let text = value.to_str().map_err(|_| FORMAT)?;
    let (did, service) = text.split_once('#').ok_or(NO_SERVICE)?;
    if did.is_empty() {
        return Err("no did specified in proxy header");
    }
    if service.is_empty() {
        return Err(NO_SERVICE);
    }
    if service.contains('#') {
        return Err(FORMAT);
    }
    if text.contains([' ', '\t']) {
        return Err("proxy header cannot contain spaces");
    }
    check_did(did, names).map_err(|problem| match problem {
        BadDid::Form => "invalid did in proxy header",
        BadDid::NotPublic => NOT_PUBLIC,
    })
}

/// Why a host may not be sent to a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadDid {
    /// It is not a DID of a method that is used for services.
    Form,
    /// Its name is not one that Genkan's guarded client would connect to.
    NotPublic,
}

/// Checks the DID of a service, which a host resolves. Returns the name that has to be looked up.
pub(super) fn check_did<'a>(did: &'a str, names: &Names) -> Result<Option<WebName<'a>>, BadDid> {
    if Did::check(did).is_err() {
        return Err(BadDid::Form);
    }
    match did.strip_prefix("did:web:") {
        Some(identifier) if is_reachable(identifier, names) => Ok(Some(WebName(identifier))),
        Some(_) => Err(BadDid::NotPublic),
        None if Did::is_of_account(did) => Ok(None),
        None => Err(BadDid::Form),
    }
}

/// Whether the guarded client would connect to the host of a `did:web`, as far as its text tells.
fn is_reachable(identifier: &str, names: &Names) -> bool {
    // Nearly every value is a plain public name, for which no URL has to be made.
    if !identifier.contains([':', '%']) && check_name(identifier).is_ok() {
        return true;
    }
    let url = origin_of_web(identifier).and_then(|origin| origin.parse::<Uri>().ok());
    url.is_some_and(|url| names.check(&url).is_ok())
}

/// What the caller is told about a service that a host may not be sent to.
pub(super) const NOT_PUBLIC: &str = "the service in the proxy header is not a public one";
const NO_SERVICE: &str = "no service id specified in proxy header";
const FORMAT: &str = "invalid proxy header format";

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::base::fetch::Dns;

    fn checked(values: &[&[u8]], listed: &[&str]) -> Result<(), &'static str> {
        let dns = Dns::new(&["127.0.0.1:9".parse().unwrap()]).unwrap();
        let names = Names::new(dns, listed.iter().map(|origin| origin.parse().unwrap()).collect());
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(ATPROTO_PROXY, HeaderValue::from_bytes(value).unwrap());
        }
        check(&headers, &names).map(drop)
    }

    #[test]
    fn a_service_is_a_did_with_a_fragment() {
        assert_eq!(checked(&[], &[]), Ok(()));
        assert_eq!(checked(&[b""], &[]), Ok(()), "as no header");
        for value in [
            "did:web:api.bsky.app#bsky_appview",
            "did:web:API.bsky.app#bsky_appview",
            "did:web:api.bsky.app%3A443#x",
            "did:plc:ar7c4by46qjdydhdevvrndac#atproto_labeler",
            "did:web:a.example.com#any-thing_that(is)/visible?",
        ] {
            assert_eq!(checked(&[value.as_bytes()], &[]), Ok(()), "{value}");
        }
        for (value, why) in [
            ("did:web:api.bsky.app", NO_SERVICE),
            ("did:web:api.bsky.app#", NO_SERVICE),
            ("x", NO_SERVICE),
            ("#x", "no did specified in proxy header"),
            ("did:web:api.bsky.app#x#y", FORMAT),
            ("did:web:api.bsky.app##", FORMAT),
            ("did:web:api.bsky.app# x", "proxy header cannot contain spaces"),
            ("did:web:api.bsky.app#x, did:web:api.bsky.app", "proxy header cannot contain spaces"),
            ("did:web:api.bsky.app#x\ty", "proxy header cannot contain spaces"),
            ("https://api.bsky.app#x", "invalid did in proxy header"),
            ("did:web:#x", "invalid did in proxy header"),
            ("did:plc:short#x", "invalid did in proxy header"),
            ("did:plc:AR7C4BY46QJDYDHDEVVRNDAC#x", "invalid did in proxy header"),
            ("did:key:zQ3shXjHeiBuRCKmM36cuYnm7YEMzhGnCmCyW92sRJ9pribSF#x", "invalid did in proxy header"),
            ("DID:web:api.bsky.app#x", "invalid did in proxy header"),
            ("did:web:api.bsky.app/x#x", "invalid did in proxy header"),
            ("did:web:a@localhost#x", "invalid did in proxy header"),
        ] {
            assert_eq!(checked(&[value.as_bytes()], &[]), Err(why), "{value}");
        }
        assert_eq!(checked(&[b"did:web:api.bsky.app#\xe4"], &[]), Err(FORMAT));
        let good: &[u8] = b"did:web:api.bsky.app#x";
        assert_eq!(checked(&[good, good], &[]), Err("duplicate atproto-proxy header"));
    }

    #[test]
    fn a_host_is_never_sent_to_a_name_that_is_not_public() {
        for name in [
            "localhost",
            "LOCALHOST",
            "localhost.",
            "localhost%3A3000",
            "localhost%3a443",
            "a.localhost",
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f.1",
            "10.0.0.7%3A80",
            "169.254.169.254",
            "printer.local",
            "metadata.google.internal",
            "a.test",
            "a.example",
            "router.lan",
            "com",
            "a_b.example.com",
            "a.example.com%3A8443",
            "a.example.com%3A80",
            "a.example.com.",
            "a.example.com:path",
            "a.example.com%2Fpath",
            "a.example.com%23",
            "loc%61lhost",
            "user%40localhost",
            "%5B%3A%3A1%5D",
            "a.example.com%3A443%3A443",
        ] {
            let value = format!("did:web:{name}#x");
            assert!(checked(&[value.as_bytes()], &[]).is_err(), "{value}");
        }
    }

    #[test]
    fn the_operators_own_services_are_exempt() {
        let listed = ["http://localhost:3000", "https://10.0.0.7", "https://view.internal:8443"];
        for name in ["localhost%3A3000", "10.0.0.7", "view.internal%3A8443"] {
            assert_eq!(checked(&[format!("did:web:{name}#x").as_bytes()], &listed), Ok(()), "{name}");
        }
        for name in ["localhost", "localhost%3A3001", "10.0.0.8", "10.0.0.7%3A80", "view.internal"] {
            assert!(checked(&[format!("did:web:{name}#x").as_bytes()], &listed).is_err(), "{name}");
        }
    }
}
