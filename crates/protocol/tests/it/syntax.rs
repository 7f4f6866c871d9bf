use std::str::FromStr;

use genkan_protocol::syntax::{AtIdentifier, Did, Handle, Nsid, Tid};

use crate::data;

#[test]
fn verdicts_are_those_of_the_reference() {
    let data = data!("syntax.json");
    compare::<Did>(&data["did"]);
    compare::<Handle>(&data["handle"]);
    compare::<Nsid>(&data["nsid"]);
    compare::<Tid>(&data["tid"]);
    compare::<AtIdentifier>(&data["at_identifier"]);
}

fn compare<T: FromStr + AsRef<str>>(data: &serde_json::Value) {
    for text in data["valid"].as_array().unwrap() {
        let text = text.as_str().unwrap();
        let parsed = T::from_str(text).unwrap_or_else(|_| panic!("refused {text:?}"));
        assert!(parsed.as_ref().eq_ignore_ascii_case(text));
    }
    for text in data["invalid"].as_array().unwrap() {
        let text = text.as_str().unwrap();
        assert!(T::from_str(text).is_err(), "accepted {text:?}");
    }
}

#[test]
fn an_nsid_is_checked_without_making_one() {
    let data = data!("syntax.json");
    for text in data["nsid"]["valid"].as_array().unwrap() {
        assert_eq!(Nsid::check(text.as_str().unwrap()), Ok(()));
    }
    for text in data["nsid"]["invalid"].as_array().unwrap() {
        assert!(Nsid::check(text.as_str().unwrap()).is_err());
    }
}

#[test]
fn dids_know_their_method() {
    let did = |text: &str| Did::from_str(text).unwrap();
    assert_eq!(did("did:web:localhost%3A2583").method(), "web");
    assert_eq!(did("did:web:localhost%3A2583").identifier(), "localhost%3A2583");
    assert!(did("did:web:example.com").is_web());
    assert!(did("did:plc:ewvi7nxzyoun6zhxrhs64oiz").is_plc());
    for text in [
        "did:plc:ewvi7nxzyoun6zhxrhs64oi",
        "did:plc:ewvi7nxzyoun6zhxrhs64oizz",
        "did:plc:ewvi7nxzyoun6zhxrhs64oi1",
        "did:plc:EWVI7NXZYOUN6ZHXRHS64OIZ",
        "did:plc:..%2f..%2fewvi7nxzyoun6",
        "did:web:ewvi7nxzyoun6zhxrhs64oiz",
    ] {
        assert!(!did(text).is_plc(), "{text}");
    }
}

#[test]
fn accounts_have_dids_of_two_methods() {
    for good in ["did:plc:ewvi7nxzyoun6zhxrhs64oiz", "did:web:example.com", "did:web:a.b-c.example"] {
        assert!(Did::is_of_account(good), "{good}");
    }
    for bad in [
        "",
        "plc",
        ":",
        "did:plc",
        "did:plc:",
        "did:plc:EWVI7NXZYOUN6ZHXRHS64OIZ",
        "did:web:",
        "did:web:localhost",
        "did:web:example.com%3A8080",
        "did:web:example.com:user",
        "did:web:127.0.0.1",
        "did:key:zQ3shXjHeiBuRCKmM36cuYnm7YEMzhGnCmCyW92sRJ9pribSF",
        "DID:plc:ewvi7nxzyoun6zhxrhs64oiz",
        "alice.example.com",
    ] {
        assert!(!Did::is_of_account(bad), "{bad}");
    }
}

#[test]
fn handles_are_lower_case_and_know_their_domain() {
    let handle = Handle::from_str("Alice.Example.COM").unwrap();
    assert_eq!(handle.as_str(), "alice.example.com");
    assert_eq!(handle.first_label(), "alice");
    assert_eq!(handle.name_under(".example.com"), Some("alice"));
    assert_eq!(handle.name_under("com"), Some("alice.example"));
    for domain in [".example.com", "example.com", ".Example.com", ".com"] {
        assert!(handle.is_under(domain), "{domain}");
    }
    for domain in [
        "",
        ".",
        "ample.com",
        ".ample.com",
        "alice.example.com",
        ".alice.example.com",
        "org",
        "x.alice.example.com",
    ] {
        assert!(!handle.is_under(domain), "{domain}");
    }
}

#[test]
fn handles_that_cannot_exist_are_known() {
    for tld in ["local", "arpa", "invalid", "localhost", "internal", "example", "alt", "onion"] {
        assert!(
            Handle::from_str(&format!("a.{}", tld.to_uppercase())).unwrap().has_disallowed_tld(),
            "{tld}"
        );
    }
    for text in ["a.test", "local.com", "onion.local.org", "a.notlocal"] {
        assert!(!Handle::from_str(text).unwrap().has_disallowed_tld(), "{text}");
    }
    assert!(Handle::from_str("a.test").unwrap().is_test());
    assert!(!Handle::from_str("a.test.com").unwrap().is_test());
}

#[test]
fn serde_checks_what_it_reads() {
    assert_eq!(serde_json::from_str::<Handle>("\"A.b\"").unwrap().as_str(), "a.b");
    assert!(serde_json::from_str::<Handle>("\"a\"").is_err());
    assert!(serde_json::from_str::<Did>("5").is_err());
    assert!(matches!(serde_json::from_str("\"did:plc:a\"").unwrap(), AtIdentifier::Did(_)));
    assert!(matches!(serde_json::from_str("\"A.b\"").unwrap(), AtIdentifier::Handle(_)));
    assert_eq!(serde_json::to_string(&Did::from_str("did:plc:a").unwrap()).unwrap(), "\"did:plc:a\"");
}

#[test]
fn errors_say_what_is_wrong() {
    let error = Handle::from_str("localhost").unwrap_err();
    assert_eq!(error.to_string(), "not a valid handle: it needs at least two parts with a dot between");
}
