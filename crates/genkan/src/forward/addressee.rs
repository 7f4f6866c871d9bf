//! The service that a call names in its input, of a method whose host calls this service.
//!
//! A host reads the input by its own rules. So an input in which two readers may find different
//! services is refused.

use std::fmt;

use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::wire::messages;

/// Returns the DID of the service that an input names, not yet checked.
///
/// # Errors
///
/// What the caller is told about an input that is not one JSON object in plain UTF-8, or that may name
/// two services.
pub(super) fn service(headers: &HeaderMap, body: &[u8]) -> Result<Option<String>, &'static str> {
    if !is_plain_json(headers) {
        return Err(messages::JSON_REQUIRED);
    }
    let codings = headers.get_all(CONTENT_ENCODING).iter();
    if codings.into_iter().any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err("this method's request body must not be compressed");
    }
    let Services(found) = serde_json::from_slice(body)
        .map_err(|_| "this method's request body must be a JSON object with texts that are UTF-8")?;
    let mut found = found.into_iter();
    match (found.next(), found.next()) {
        (None, _) => Ok(None),
        (Some(None), _) => Err("serviceDid must be a string"),
        (Some(service), None) => Ok(service),
        (Some(_), Some(_)) => Err("this method's request body must name one service"),
    }
}

/// Whether the body is JSON in UTF-8. Some readers decode other charsets, such as UTF-7, in which
/// the bytes may mean another input.
fn is_plain_json(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(CONTENT_TYPE).iter().map(|given| given.to_str().unwrap_or_default());
    let (Some(given), None) = (types.next(), types.next()) else { return false };
    let (media_type, parameter) = given.split_once(';').unwrap_or((given, ""));
    let is = |text: &str, wanted: &str| text.trim().eq_ignore_ascii_case(wanted);
    is(media_type, "application/json")
        && ["", "charset=utf-8", "charset=\"utf-8\""].iter().any(|wanted| is(parameter, wanted))
}

/// The services of an input. `None` stands for a service that is not a text.
struct Services(Vec<Option<String>>);

/// A value of the input.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Member {
    Text(String),
    Other(IgnoredAny),
}

impl<'de> Deserialize<'de> for Services {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Members)
    }
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Services;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Services, A::Error> {
        let mut services = Vec::new();
        // Every member counts: of two with one name, readers take the first or the last, and some
        // compare names without regard to case, by rules of their own.
        while let Some((name, value)) = members.next_entry::<String, Member>()? {
            let is_named = name.eq_ignore_ascii_case("serviceDid");
            match value {
                Member::Text(text) if is_named || is_like_a_did(&text) => services.push(Some(text)),
                Member::Other(_) if is_named => services.push(None),
                Member::Text(_) | Member::Other(_) => {}
            }
        }
        Ok(Services(services))
    }
}

fn is_like_a_did(text: &str) -> bool {
    text.trim_start().get(..4).is_some_and(|start| start.eq_ignore_ascii_case("did:"))
}

/// What the caller is told about a service that a host may not be sent to.
pub(super) const NOT_PUBLIC: &str = "serviceDid must be the DID of a public service";

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn found(media_type: &'static str, body: &str) -> Option<Option<String>> {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(media_type))]);
        service(&headers, body.as_bytes()).ok()
    }

    #[test]
    fn an_input_names_one_service() {
        let json = |body| found("application/json", body);
        assert_eq!(json("{}"), Some(None));
        assert_eq!(json(r#"{"token":"t","platform":"ios","ageRestricted":true,"x":[{}]}"#), Some(None));
        for (body, wanted) in [
            (r#"{"serviceDid":"did:web:a.com","token":"t"}"#, "did:web:a.com"),
            (r#"{"\u0073erviceDid":"b"}"#, "b"),
            (r#"{"SERVICEDID":"c"}"#, "c"),
            // `ſ` is an `s` to readers that fold case by Unicode.
            (r#"{"ſerviceDid":"did:web:a.com"}"#, "did:web:a.com"),
            (r#"{"x":" DID:web:a.com"}"#, " DID:web:a.com"),
        ] {
            assert_eq!(json(body), Some(Some(wanted.to_owned())), "{body}");
        }
        for body in [
            "",
            "[]",
            "1",
            "{",
            "{} {}",
            r#"{"serviceDid":1}"#,
            r#"{"serviceDid":["did:web:a.com"]}"#,
            r#"{"serviceDid":"did:web:a.com","serviceDid":"did:web:a.com"}"#,
            r#"{"serviceDid":"did:web:a.com","servicedid":"did:web:b.com"}"#,
            r#"{"serviceDid":"did:web:a.com","ſerviceDid":"did:web:b.com"}"#,
        ] {
            assert_eq!(json(body), None, "{body}");
        }
    }

    #[test]
    fn an_input_with_two_meanings_is_refused() {
        for media_type in [
            "application/json; charset=utf-8",
            "Application/JSON;charset=UTF-8",
            r#"application/json; charset="utf-8""#,
        ] {
            assert_eq!(found(media_type, "{}"), Some(None), "{media_type}");
        }
        for media_type in [
            "application/json; charset=utf-7",
            "application/json; charset=utf-16",
            "application/json; charset=utf-8; charset=utf-7",
            "application/json; x=y; charset=utf-7",
            "text/plain",
            "",
        ] {
            assert_eq!(found(media_type, "{}"), None, "{media_type}");
        }
        let json = HeaderValue::from_static("application/json");
        let mut headers = HeaderMap::new();
        assert!(service(&headers, b"{}").is_err(), "no type");
        headers.append(CONTENT_TYPE, json.clone());
        headers.append(CONTENT_ENCODING, HeaderValue::from_static("identity"));
        assert!(service(&headers, b"{}").is_ok());
        headers.append(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        assert!(service(&headers, b"{}").is_err(), "compressed");
        headers.remove(CONTENT_ENCODING);
        headers.append(CONTENT_TYPE, json);
        assert!(service(&headers, b"{}").is_err(), "two types");
        assert!(service(&HeaderMap::new(), b"\xff\xfe{\0}\0").is_err());
    }
}
