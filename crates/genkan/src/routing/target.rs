//! The account that a read names in its query.

use std::borrow::Cow;

use genkan_protocol::syntax::{Did, Handle};

use super::row::Parameter;

/// An account, as a query names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target<'a> {
    Did(Cow<'a, str>),
    /// In lower case.
    Handle(String),
}

/// Why no account can be read from a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoTarget {
    Missing,
    /// Two parsers might choose different ones.
    Repeated,
    /// Neither a DID of a method we know nor, where one is allowed, a handle.
    Invalid,
}

/// Reads the parameter that names the target. It must be there exactly once.
pub(crate) fn of_query(query: Option<&str>, parameter: Parameter) -> Result<Target<'_>, NoTarget> {
    let mut found = None;
    for pair in query.unwrap_or_default().split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        // With two values, the host might read another one than was checked here.
        if names(name, parameter.as_str()) && found.replace(value).is_some() {
            return Err(NoTarget::Repeated);
        }
    }
    let value = decode(found.ok_or(NoTarget::Missing)?).ok_or(NoTarget::Invalid)?;
    if value.is_empty() {
        return Err(NoTarget::Missing);
    }
    // Nothing is allocated for a DID, which is what most reads name.
    if Did::is_of_account(&value) {
        return Ok(Target::Did(value));
    }
    if parameter == Parameter::Repo && Handle::check(&value).is_ok() {
        return Ok(Target::Handle(value.to_ascii_lowercase()));
    }
    Err(NoTarget::Invalid)
}

/// Whether a query's name is the parameter in any spelling that some parser takes for it:
/// percent-encoded, or with the brackets by which some write lists.
fn names(written: &str, parameter: &str) -> bool {
    if written == parameter {
        return true;
    }
    // Almost every query ends here, without decoding.
    if !written.contains(['%', '[']) {
        return false;
    }
    decode(written).is_some_and(|name| {
        name.strip_prefix(parameter).is_some_and(|rest| rest.is_empty() || rest.starts_with('['))
    })
}

/// Percent-decoding. `None`: not well formed, or not UTF-8 afterwards.
fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains(['%', '+']) {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit =
                    || char::from(rest.next()?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                // A `%` without two digits is refused. Parsers disagree on what it means.
                digit()? << 4 | digit()?
            }
            // A space in form encoding, which PDSes decode too. No DID or handle has one.
            b'+' => b' ',
            other => other,
        });
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DID: &str = "did:plc:abcdefghijklmnopqrstuvwx";

    #[test]
    fn the_parameter_counts_once_in_any_spelling() {
        fn read(query: &str) -> Result<Target<'_>, NoTarget> {
            of_query(Some(query), Parameter::Repo)
        }
        let did = || Ok(Target::Did(Cow::Borrowed(DID)));
        assert_eq!(read(&format!("repo={DID}&collection=a.b.c")), did());
        assert_eq!(read("collection=a.b.c&repo=did%3Aplc%3Aabcdefghijklmnopqrstuvwx&repos=2"), did());
        assert_eq!(read("%72epo=did:plc:abcdefghijklmnopqrstuvwx"), did());
        assert_eq!(read("repo=Alice.Example"), Ok(Target::Handle("alice.example".to_owned())));
        for repeated in [
            format!("repo={DID}&repo={DID}"),
            format!("repo={DID}&%72epo=x"),
            format!("repo={DID}&repo[]=x"),
            format!("repo={DID}&repo%5B0%5D=x"),
            format!("repo={DID}&repo"),
        ] {
            assert_eq!(read(&repeated), Err(NoTarget::Repeated), "{repeated}");
        }
        for missing in ["", "repo", "repo=", "Repo=a.b", "did=did:plc:abcdefghijklmnopqrstuvwx", "a=repo"] {
            assert_eq!(read(missing), Err(NoTarget::Missing), "{missing}");
        }
        assert_eq!(of_query(None, Parameter::Did), Err(NoTarget::Missing));
    }

    #[test]
    fn only_dids_of_known_methods_are_targets() {
        for good in [DID, "did:web:example.com", "did:web:a.b-c.example"] {
            assert!(of_query(Some(&format!("did={good}")), Parameter::Did).is_ok(), "{good}");
        }
        for bad in [
            "did:plc:short",
            "did:plc:ABCDEFGHIJKLMNOPQRSTUVWX",
            "did:plc:abcdefghijklmnopqrstuvw1",
            "did:key:zQ3shXjHeiBuRCKmM36cuYnm7YEMzhGnCmCyW92sRJ9pribSF",
            "did:web:example.com%3A8080",
            "did:web:",
            "did:web:localhost",
            "did:web:example.com:user",
            "did:web:127.0.0.1",
            "DID:plc:abcdefghijklmnopqrstuvwx",
            "alice.example",
            "did",
            "%",
            "%zz",
            "%ff",
            "did:plc:abcdefghijklmnopqrstuvwx%20",
        ] {
            assert_eq!(
                of_query(Some(&format!("did={bad}")), Parameter::Did),
                Err(NoTarget::Invalid),
                "{bad}"
            );
        }
        for bad in
            ["alice", "-a.example", "a..example", "alice.example.", "a.1", "al_ice.example", "a+b.example"]
        {
            assert_eq!(
                of_query(Some(&format!("repo={bad}")), Parameter::Repo),
                Err(NoTarget::Invalid),
                "{bad}"
            );
        }
    }
}
